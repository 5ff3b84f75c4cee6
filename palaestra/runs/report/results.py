"""From the summaries of evaluations to comparable results: one for each agent and suite."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from palaestra.metrics import statistics
from palaestra.runs.report.estimate import Estimate
from palaestra.runs.report.groups import Group
from palaestra.runs.report.read import Evaluated, Row, Run
from palaestra.seeding import Role, generator


@dataclass(frozen=True)
class Result:
    """One agent on one suite at its last evaluation."""

    suite: str
    label: str
    trained: bool
    mode: str
    units: int
    """What the intervals resample: training runs, evaluation seeds, or episodes of one seed."""
    over: str
    episodes: int
    versions: dict[str, str]
    tasks: dict[str, dict[str, Estimate]]
    overall: dict[str, Estimate]
    meanings: dict[str, str] = field(default_factory=dict)
    envs: dict[str, tuple[str, Row]] = field(default_factory=dict)
    """Environment id and keyword arguments of each task."""
    runs: dict[str, int | None] = field(default_factory=dict)
    """Training seed of each run that was evaluated, by run id."""
    refused: dict[str, str] = field(default_factory=dict)
    """Task id -> why the agent could not play it."""


def results(groups: Sequence[Group]) -> list[Result]:
    """Return the trained agents, one a group, then the baselines, each once."""
    trained: list[Result] = []
    baselines: dict[tuple[str, str], Result] = {}
    for group in groups:
        own: dict[str, list[Result]] = {}
        for run in group.runs:
            for item in run.last_evaluated():
                if is_trained(item, run):
                    found = result_of(item, group.label, trained=True)
                    found = replace(found, runs={run.name: run.seed})
                    own.setdefault(item.suite, []).append(found)
                else:
                    found = result_of(item, item.agent)
                    baselines.setdefault((item.suite, item.agent), found)
        trained += [merge(of_suite) for of_suite in own.values()]
    return trained + list(baselines.values())


def is_trained(item: Evaluated, run: Run) -> bool:
    """Whether the evaluated agent is the run's own, not a baseline evaluated beside it."""
    return item.agent == run.agent


def result_of(item: Evaluated, label: str, trained: bool = False) -> Result:
    """Return what one evaluation found."""
    summary = item.summary
    tasks = {str(task.get("id")): task for task in summary.get("tasks", [])}
    seeds = summary.get("seeds", [])
    over = summary.get("intervals", {}).get("over", "seeds")
    episodes = max((int(task.get("episodes", 0)) for task in tasks.values()), default=0)
    return Result(
        suite=item.suite,
        label=label,
        trained=trained,
        mode=str(summary.get("mode", "")),
        units=len(seeds) if over == "seeds" else 1,
        over="evaluation seed",
        episodes=episodes,
        versions={str(k): str(v) for k, v in summary.get("versions", {}).items()},
        tasks={name: _figures(task, seeds, item.agent) for name, task in tasks.items()},
        overall=_overall(summary),
        meanings={k: str(v.get("meaning", "")) for k, v in summary.get("metrics", {}).items()},
        envs={
            name: (str(task.get("env_id")), task.get("env_kwargs") or {})
            for name, task in tasks.items()
        },
        refused=summary.get("not_applicable", {}),
    )


def _figures(task: Row, seeds: Sequence[int], agent: str) -> dict[str, Estimate]:
    """Return a task's means, the IQMs of the score and of the figure that ranks agents.

    Where the task knows that figure of the agent, from a closed form or from many more episodes,
    it stands beside it as `known`.
    """
    metrics = {"score": task.get("score") or {}, **task.get("metrics", {})}
    figures = {name: _figure(estimate, "mean", seeds) for name, estimate in metrics.items()}
    figures["score_iqm"] = _figure(metrics["score"], "iqm")
    ranking = next((name for name in ("regret", "return") if name in figures), None)
    if ranking:
        figures[f"{ranking}_iqm"] = _figure(metrics[ranking], "iqm")
        if (known := task.get("reference", {}).get(f"{ranking}/{agent}")) is not None:
            figures["known"] = Estimate(float(known))
    return {name: figure for name, figure in figures.items() if figure.defined}


def _figure(estimate: Row, statistic: str, seeds: Sequence[int] = ()) -> Estimate:
    value = estimate.get(statistic)
    by_seed = zip(seeds, estimate.get("by_seed", []), strict=False)
    return Estimate(
        np.nan if value is None else float(value),
        estimate.get(f"{statistic}_low"),
        estimate.get(f"{statistic}_high"),
        {seed: value for seed, value in by_seed if value is not None},
    )


def _overall(summary: Row) -> dict[str, Estimate]:
    """Return the scores over all tasks and, without interval, the mean over tasks of each share."""
    names = {"score_iqm": "iqm", "score": "mean", "optimality_gap": "optimality_gap"}
    aggregate = summary.get("aggregate", {})
    figures = {
        name: Estimate(float(a["value"]), a.get("low"), a.get("high"))
        for name, key in names.items()
        if (a := aggregate.get(key)) and a.get("value") is not None
    }
    for name, unit in summary.get("metrics", {}).items():
        if unit.get("unit") == "share":
            values = [
                task["metrics"][name]["mean"]
                for task in summary["tasks"]
                if task["metrics"].get(name, {}).get("mean") is not None
            ]
            if values:
                figures[name] = Estimate(float(np.mean(values)))
    return figures


def merge(found: Sequence[Result]) -> Result:
    """Return the results of several training runs as one, with intervals over the runs.

    A run's evaluation seeds are averaged first: the run is the unit of replication. Over all tasks
    the runs are resampled within each task (the stratified bootstrap).
    """
    first = found[0]
    if len(found) == 1:
        return first
    runs = {name: seed for result in found for name, seed in result.runs.items()}
    return replace(
        first,
        units=len(found),
        over="training seed",
        tasks={
            task: _merged(list(runs), [r.tasks.get(task, {}) for r in found])
            for task in first.tasks
        },
        overall=_merged(list(runs), [r.overall for r in found], _task_scores(found)),
        runs=runs,
    )


def _merged(
    runs: Sequence[str], figures: Sequence[dict[str, Estimate]], scores: np.ndarray | None = None
) -> dict[str, Estimate]:
    """Return the figures over the runs; those of the score from `scores` where it is given."""
    shared = [name for name in figures[0] if all(name in other for other in figures)]
    merged = {}
    for name in shared:
        mean = name.removesuffix("_iqm")
        if scores is not None and name in _SCORES:
            merged[name] = _over_runs(scores, _SCORES[name])
        else:
            column = np.array([f[mean].value for f in figures])[:, None]
            merged[name] = _over_runs(column, statistics.mean if mean == name else statistics.iqm)
        by_run = dict(zip(runs, (f[name] for f in figures), strict=True))
        merged[name] = replace(merged[name], by_run=by_run)
    return merged


_SCORES = {
    "score_iqm": statistics.iqm,
    "score": statistics.mean,
    "optimality_gap": statistics.optimality_gap,
}
"""Figures over all tasks that are statistics of the matrix of scores."""


def _task_scores(found: Sequence[Result]) -> np.ndarray | None:
    """Return the scores `[runs, tasks]`; None where a run lacks a task."""
    tasks = list(found[0].tasks)
    if not tasks or not all("score" in r.tasks.get(task, {}) for r in found for task in tasks):
        return None
    return np.array([[r.tasks[task]["score"].value for task in tasks] for r in found])


def _over_runs(scores: np.ndarray, statistic: statistics.Statistic) -> Estimate:
    interval = statistics.bootstrap_interval(scores, generator(0, Role.STATISTICS), statistic)
    return Estimate(float(statistic(scores)), interval.low, interval.high)
