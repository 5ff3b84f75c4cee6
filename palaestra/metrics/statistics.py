"""Statistics over runs and tasks: IQM, stratified bootstrap intervals, Wilson, P(X > Y), profiles.

Scores come as a matrix `(runs, tasks)`, or as one array of runs for each task where their numbers
differ. The replication unit is the run (one seed): average the episodes of a run first.

The estimators are those of Agarwal et al., "Deep Reinforcement Learning at the Edge of the
Statistical Precipice" (arXiv 2108.13264).
"""

from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

Scores = np.ndarray | Sequence[np.ndarray]
"""A matrix (runs, tasks), or for each task an array whose last axis is its runs."""

Statistic = Callable[[Scores], np.ndarray]
"""From scores, whose arrays may have leading axes `[...]`, to one number for each, `[...]`."""

TABLE_REPETITIONS = 50_000
CURVE_REPETITIONS = 2_000

_CHUNK_NUMBERS = 2_000_000  # 16 MB of draws at once


class Interval(NamedTuple):
    """A confidence interval and how it was found."""

    low: float
    high: float
    level: float = 0.95
    repetitions: int = 0
    """Bootstrap repetitions; 0 for a closed form."""


def by_task(scores: Scores) -> list[np.ndarray]:
    """Return one array of runs for each task; a matrix is split by its columns."""
    if isinstance(scores, np.ndarray):
        return list(np.asarray(scores, np.float64).T)
    return [np.asarray(runs, np.float64) for runs in scores]


def iqm(scores: Scores) -> np.ndarray:
    """Return the interquartile mean: of all N scores, drop floor(N/4) at each end, average."""
    pooled = np.sort(np.concatenate(by_task(scores), axis=-1), axis=-1)
    cut = pooled.shape[-1] // 4
    result: np.ndarray = pooled[..., cut : pooled.shape[-1] - cut].mean(-1)
    return result


def mean(scores: Scores) -> np.ndarray:
    """Return the mean of the tasks' means."""
    result: np.ndarray = _task_means(scores).mean(-1)
    return result


def median(scores: Scores) -> np.ndarray:
    """Return the median of the tasks' means."""
    result: np.ndarray = np.median(_task_means(scores), axis=-1)
    return result


def optimality_gap(scores: Scores) -> np.ndarray:
    """Return the mean shortfall below 1, max(0, 1 - score); 0 is best."""
    result: np.ndarray = _task_means(
        [np.maximum(0.0, 1.0 - runs) for runs in by_task(scores)]
    ).mean(-1)
    return result


def _task_means(scores: Scores) -> np.ndarray:
    return np.stack([runs.mean(-1) for runs in by_task(scores)], axis=-1)


def bootstrap_interval(
    scores: Scores,
    rng: np.random.Generator,
    statistic: Statistic = iqm,
    repetitions: int = TABLE_REPETITIONS,
    level: float = 0.95,
) -> Interval:
    """Return the percentile interval of `statistic`, resampling runs within each task.

    Too short with few runs: for normal scores on 10 tasks the nominal 95 % covers 88 % with 3
    runs, 93 % with 5 and 95 % with 10.
    """
    return bootstrap_intervals(scores, rng, [statistic], repetitions, level)[0]


def bootstrap_intervals(
    scores: Scores,
    rng: np.random.Generator,
    statistics: Sequence[Statistic],
    repetitions: int = TABLE_REPETITIONS,
    level: float = 0.95,
) -> list[Interval]:
    """Return the intervals of several statistics, all from the same draws."""
    # Sorted, so that the order in which the runs were listed changes nothing.
    tasks = [np.sort(runs) for runs in by_task(scores)]
    draws: list[list[np.ndarray]] = [[] for _ in statistics]
    for n in _chunks(tasks, repetitions):
        resampled = _resample(tasks, n, rng)
        for found, statistic in zip(draws, statistics, strict=True):
            found.append(statistic(resampled))
    return [_percentile(np.concatenate(found), level) for found in draws]


def probability_of_improvement(x: Scores, y: Scores) -> float:
    """Return P(X > Y), ties counted 1/2, averaged over tasks (Mann-Whitney U / (n_x n_y))."""
    return float(_improvement(by_task(x), by_task(y)))


def improvement_interval(
    x: Scores,
    y: Scores,
    rng: np.random.Generator,
    repetitions: int = CURVE_REPETITIONS,
    level: float = 0.95,
) -> Interval:
    """Return the stratified bootstrap interval of `probability_of_improvement`."""
    xs, ys = ([np.sort(runs) for runs in by_task(scores)] for scores in (x, y))
    draws = [
        _improvement(_resample(xs, n, rng), _resample(ys, n, rng))
        for n in _chunks([*xs, *ys], repetitions)
    ]
    return _percentile(np.concatenate(draws), level)


def _improvement(xs: Sequence[np.ndarray], ys: Sequence[np.ndarray]) -> np.ndarray:
    result: np.ndarray = np.stack(
        [_mann_whitney(x, y) for x, y in zip(xs, ys, strict=True)], -1
    ).mean(-1)
    return result


def _mann_whitney(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    sign = np.sign(x[..., :, None] - y[..., None, :])
    result: np.ndarray = (0.5 * (1.0 + sign)).mean((-2, -1))
    return result


def performance_profile(scores: Scores, thresholds: np.ndarray) -> np.ndarray:
    """Return, for each threshold, the fraction of run x task scores above it, `[..., taus]`."""
    pooled = np.concatenate(by_task(scores), axis=-1)
    result: np.ndarray = (pooled[..., None] > thresholds).mean(-2)
    return result


def wilson(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Return Wilson's score interval of a success rate (doi 10.1080/01621459.1927.10502953)."""
    z = NormalDist().inv_cdf(0.5 + level / 2)
    p, n = successes / trials, trials
    centre = p + z * z / (2 * n)
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return Interval(
        max(0.0, float(centre - half) / scale), min(1.0, float(centre + half) / scale), level
    )


def _resample(
    tasks: Sequence[np.ndarray], repetitions: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Return, for each task, runs drawn with replacement, `[repetitions, runs]`."""
    return [runs[rng.integers(len(runs), size=(repetitions, len(runs)))] for runs in tasks]


def _chunks(tasks: Sequence[np.ndarray], repetitions: int) -> list[int]:
    size = max(1, _CHUNK_NUMBERS // sum(len(runs) for runs in tasks))
    full, rest = divmod(repetitions, size)
    return [size] * full + ([rest] if rest else [])


def _percentile(draws: np.ndarray, level: float) -> Interval:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, len(draws))
