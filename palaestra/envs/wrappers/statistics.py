"""Mean and variance of a stream, one batch after another, and of several streams together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

Statistics = dict[str, dict[str, Any]]
"""What a wrapper has seen: for each leaf of its observations, or "reward", what `plain` gives."""


@dataclass(frozen=True)
class RunningStatistics:
    """Count, mean and population variance of samples of one shape.

    Two of them are merged by the formula of Chan, Golub and LeVeque (1979, "Updating formulae and a
    pairwise algorithm for computing sample variances"), which for single samples is Welford's; the
    order of batches does not matter but for rounding.
    """

    mean: np.ndarray
    """float64 `[*shape]`."""
    var: np.ndarray
    """float64 `[*shape]`."""
    count: float
    """Samples seen."""

    @classmethod
    def empty(cls, shape: tuple[int, ...]) -> Self:
        """Return the statistics of nothing."""
        return cls(np.zeros(shape), np.zeros(shape), 0.0)

    @classmethod
    def prior(cls, shape: tuple[int, ...]) -> Self:
        """Return what Stable-Baselines3 starts from: 1e-4 samples of mean 0 and variance 1."""
        return cls(np.zeros(shape), np.ones(shape), 1e-4)

    def update(self, batch: np.ndarray) -> Self:
        """Return the statistics with a batch `[M, *shape]` seen as well."""
        if not len(batch):
            return self
        x = np.asarray(batch, np.float64)
        return self.merge(type(self)(x.mean(axis=0), x.var(axis=0), float(len(x))))

    def merge(self, other: "RunningStatistics") -> Self:
        """Return the statistics of both streams together."""
        count = self.count + other.count
        if not count:
            return self
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        var = self.var * (self.count / count) + other.var * (other.count / count)
        var = var + delta**2 * (self.count / count) * (other.count / count)
        return type(self)(mean, var, count)

    def plain(self) -> dict[str, Any]:
        """Return a copy as plain values and arrays."""
        return {"mean": self.mean.copy(), "var": self.var.copy(), "count": self.count}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Self:
        """Return the statistics that `plain` gave."""
        return cls(
            np.array(values["mean"], np.float64),
            np.array(values["var"], np.float64),
            float(values["count"]),
        )


def merge_statistics(parts: Sequence[dict[str, Statistics]]) -> dict[str, Statistics]:
    """Return what several environments have seen together, by wrapper and leaf.

    Args:
      parts: what `palaestra.envs.state.wrapper_statistics` gave, of environments with the same
        wrappers, each of what it has seen itself since it was made.
    """
    merged: dict[str, Statistics] = {}
    for wrapper, leaves in parts[0].items():
        merged[wrapper] = {}
        for leaf in leaves:
            total = RunningStatistics.from_plain(parts[0][wrapper][leaf])
            for part in parts[1:]:
                total = total.merge(RunningStatistics.from_plain(part[wrapper][leaf]))
            merged[wrapper][leaf] = total.plain()
    return merged
