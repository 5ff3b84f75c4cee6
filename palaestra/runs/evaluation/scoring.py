"""From recorded episodes to a task's result: metrics, score, means and IQMs with intervals."""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from palaestra.envs.suites import Task
from palaestra.experience.episodes import EpisodeMetric, Episodes
from palaestra.metrics import statistics
from palaestra.registry import registry
from palaestra.runs.evaluation.results import Estimates, TaskResult
from palaestra.runs.report.estimate import Estimate
from palaestra.seeding import Role, generator

LEVEL = 0.95
TRACE_EPISODES = 3
TRACE_KEYS = ("expected_reward", "best_expected_reward", "regret")


def task_result(
    task: Task, seeds: Sequence[int], played: Sequence[Episodes], repetitions: int
) -> TaskResult:
    """Return metrics, score and records of a task from the episodes of each seed."""
    metrics = [metric for metric in episode_metrics() if metric.applies(played[0])]
    values = {metric.name: [metric(episodes) for episodes in played] for metric in metrics}
    rng = generator(seeds[0], Role.STATISTICS, zlib.crc32(task.id.encode()))
    estimates = {
        metric.name: estimate(
            values[metric.name], [metric.weights(e) for e in played], rng, repetitions
        )
        for metric in metrics
    }
    scores = _scores(task, values)
    return TaskResult(
        task=task,
        episodes=len(played[0].length),
        score=estimate(scores, [np.ones(len(s)) for s in scores], rng, repetitions),
        metrics=estimates,
        rows=_rows(task, seeds, {"score": scores, **values}),
        trace=_trace(seeds[0], played[0]),
        recorded=played[0] if played[0].observations is not None else None,
    )


def _scores(task: Task, values: dict[str, list[np.ndarray]]) -> list[np.ndarray]:
    """Return the score of each episode of each seed; means of scores are scores of means."""
    if "regret" in values:
        return [np.array([task.score(0.0, g) for g in of_seed]) for of_seed in values["regret"]]
    return [np.array([task.score(r) for r in of_seed]) for of_seed in values["return"]]


def _rows(
    task: Task, seeds: Sequence[int], values: dict[str, list[np.ndarray]]
) -> list[dict[str, Any]]:
    """Return one record for each episode; None where a metric is not defined."""
    return [
        {"task": task.id, "seed": seed, "episode": episode}
        | {name: _defined(of_seed[n][episode]) for name, of_seed in values.items()}
        for n, seed in enumerate(seeds)
        for episode in range(len(values["return"][n]))
    ]


def _defined(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _trace(seed: int, episodes: Episodes) -> list[dict[str, Any]]:
    """Return the first episodes of the first seed step by step."""
    columns = {"actions": episodes.action, "rewards": episodes.reward} | {
        key: episodes.info[key] for key in TRACE_KEYS if key in episodes.info
    }
    trace: list[dict[str, Any]] = []
    for e, length in enumerate(episodes.length[:TRACE_EPISODES]):
        shown = {name: column[e, :length].tolist() for name, column in columns.items()}
        if episodes.boards is not None:
            shown["boards"] = episodes.boards[e, : length + 1].tolist()
        trace.append({"seed": seed, "episode": e} | shown)
    return trace


def estimate(
    values: Sequence[np.ndarray],
    weights: Sequence[np.ndarray],
    rng: np.random.Generator,
    repetitions: int,
) -> Estimates:
    """Return mean and IQM over seeds; over the episodes where there is one seed."""
    means = np.array([_weighted_mean(v, w) for v, w in zip(values, weights, strict=True)])
    units = means[np.isfinite(means)]
    if len(means) == 1 and len(units):
        units = _episode_units(values[0], weights[0], means[0])
    units = units[:, None]
    if not len(units):
        nowhere = Estimate(np.nan)
        return Estimates(nowhere, nowhere, tuple(means.tolist()))
    mean, iqm = _with_intervals(units, rng, [statistics.mean, statistics.iqm], repetitions)
    return Estimates(mean, iqm, tuple(means.tolist()))


def _with_intervals(
    scores: statistics.Scores,
    rng: np.random.Generator,
    functions: Sequence[statistics.Statistic],
    repetitions: int,
) -> list[Estimate]:
    intervals = statistics.bootstrap_intervals(scores, rng, functions, repetitions, LEVEL)
    return [
        Estimate(float(function(scores)), interval.low, interval.high)
        for function, interval in zip(functions, intervals, strict=True)
    ]


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> float:
    defined = weights > 0
    if not defined.any():
        return np.nan
    return float(np.average(values[defined], weights=weights[defined]))


def _episode_units(values: np.ndarray, weights: np.ndarray, mean: float) -> np.ndarray:
    """Return one number for each episode whose plain mean is the weighted one.

    Resampling them is the bootstrap of the ratio to first order; equal weights change nothing.
    """
    result: np.ndarray = (
        mean + np.where(weights > 0, weights * (values - mean), 0.0) / weights.mean()
    )
    return result


def aggregate(
    found: Sequence[TaskResult], seeds: Sequence[int], repetitions: int
) -> dict[str, Estimate]:
    """Return the statistics of the scores over all tasks; runs are seeds, or episodes of one."""
    found = [result for result in found if np.isfinite(result.task.high - result.task.low)]
    names = ("iqm", "mean", "median", "optimality_gap")
    if not found:  # no bounds are known between which a score would lie
        return dict.fromkeys(names, Estimate(np.nan))
    if len(seeds) > 1:
        scores = [np.array(result.score.by_seed) for result in found]
    else:
        scores = [np.array([row["score"] for row in result.rows]) for result in found]
    rng = generator(seeds[0], Role.STATISTICS)
    functions = [getattr(statistics, name) for name in names]
    estimates = _with_intervals(scores, rng, functions, repetitions)
    return dict(zip(names, estimates, strict=True))


def episode_metrics() -> list[EpisodeMetric]:
    """Return the registered metrics of episodes, plug-ins included."""
    things = [entry.load() for entry in registry.entries("metric").values()]
    return [thing for thing in things if isinstance(thing, EpisodeMetric)]


def units(found: Sequence[TaskResult]) -> dict[str, dict[str, str]]:
    """Return unit and meaning of each metric that was found."""
    shown = {name for result in found for name in result.metrics}
    metrics = [metric for metric in episode_metrics() if metric.name in shown]
    return {metric.name: {"unit": metric.unit, "meaning": metric.meaning} for metric in metrics}
