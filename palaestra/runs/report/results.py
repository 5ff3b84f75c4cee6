"""From the summaries of evaluations to comparable results: one for each agent and suite."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from palaestra.metrics import statistics
from palaestra.runs.report.groups import Group
from palaestra.runs.report.read import Evaluated, Row, Run
from palaestra.seeding import Role, generator


@dataclass(frozen=True)
class Figure:
    """A number and, where it has one, its 95 % interval."""

    value: float
    low: float | None = None
    high: float | None = None
    by_seed: dict[int, float] = field(default_factory=dict)
    """The means of the evaluation seeds, which all agents share."""

    @property
    def bounds(self) -> tuple[float, float]:
        """The interval; the value itself where there is none."""
        known = self.low is not None and self.high is not None
        return (self.low, self.high) if known else (self.value, self.value)  # type: ignore[return-value]


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
    tasks: dict[str, dict[str, Figure]]
    overall: dict[str, Figure]
    meanings: dict[str, str] = field(default_factory=dict)
    envs: dict[str, tuple[str, Row]] = field(default_factory=dict)
    """Environment id and keyword arguments of each task."""


def results(groups: Sequence[Group]) -> list[Result]:
    """Return the trained agents, one a group, then the reference agents, each once."""
    trained: list[Result] = []
    references: dict[tuple[str, str], Result] = {}
    for group in groups:
        own: dict[str, list[Result]] = {}
        for run in group.runs:
            for item in run.last_evaluated():
                if is_trained(item, run):
                    found = _result(item, group.label, trained=True)
                    own.setdefault(item.suite, []).append(found)
                else:
                    found = _result(item, item.agent, trained=False)
                    references.setdefault((item.suite, item.agent), found)
        trained += [merge(of_suite) for of_suite in own.values()]
    return trained + list(references.values())


def is_trained(item: Evaluated, run: Run) -> bool:
    """Whether the evaluated agent is the run's own, not a reference evaluated beside it."""
    return item.agent == run.learner


def _result(item: Evaluated, label: str, trained: bool) -> Result:
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
        tasks={name: _figures(task, seeds) for name, task in tasks.items()},
        overall=_overall(summary),
        meanings={k: str(v.get("meaning", "")) for k, v in summary.get("metrics", {}).items()},
        envs={
            name: (str(task.get("env_id")), task.get("env_kwargs") or {})
            for name, task in tasks.items()
        },
    )


def _figures(task: Row, seeds: Sequence[int]) -> dict[str, Figure]:
    """Return a task's means, and the IQM of the figure by which agents are compared."""
    metrics = {"score": task.get("score") or {}, **task.get("metrics", {})}
    figures = {name: _figure(estimate, "mean", seeds) for name, estimate in metrics.items()}
    for name in ("regret", "return"):
        if name in figures:
            figures[f"{name}_iqm"] = _figure(metrics[name], "iqm")
            break
    return {name: figure for name, figure in figures.items() if math.isfinite(figure.value)}


def _figure(estimate: Row, statistic: str, seeds: Sequence[int] = ()) -> Figure:
    value = estimate.get(statistic)
    by_seed = zip(seeds, estimate.get("by_seed", []), strict=False)
    return Figure(
        math.nan if value is None else float(value),
        estimate.get(f"{statistic}_low"),
        estimate.get(f"{statistic}_high"),
        {seed: value for seed, value in by_seed if value is not None},
    )


def _overall(summary: Row) -> dict[str, Figure]:
    """Return the scores over all tasks and, without interval, the mean over tasks of each share."""
    names = {"score_iqm": "iqm", "score": "mean", "optimality_gap": "optimality_gap"}
    aggregate = summary.get("aggregate", {})
    figures = {
        name: Figure(float(a["value"]), a.get("low"), a.get("high"))
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
                figures[name] = Figure(float(np.mean(values)))
    return figures


def merge(found: Sequence[Result]) -> Result:
    """Return the results of several training runs as one, with intervals over the runs."""
    first = found[0]
    if len(found) == 1:
        return first
    tasks = {name: _merged([r.tasks.get(name, {}) for r in found]) for name in first.tasks}
    return Result(
        **{
            **vars(first),
            "units": len(found),
            "over": "training seed",
            "tasks": tasks,
            "overall": _merged([r.overall for r in found]),
        }
    )


def _merged(figures: Sequence[dict[str, Figure]]) -> dict[str, Figure]:
    shared = [name for name in figures[0] if all(name in other for other in figures)]
    return {name: _over_runs([f[name].value for f in figures], name) for name in shared}


def _over_runs(values: Sequence[float], name: str) -> Figure:
    statistic = statistics.iqm if name.endswith("_iqm") else statistics.mean
    scores = np.array(values)[:, None]
    interval = statistics.bootstrap_interval(scores, generator(0, Role.STATISTICS), statistic)
    return Figure(float(statistic(scores)), interval.low, interval.high)
