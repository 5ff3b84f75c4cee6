"""Recorded episodes, and what a metric of an episode is."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Episodes:
    """E recorded episodes, padded to the longest, T steps.

    Entries at and after `length[e]` are padding and mean nothing; `valid` tells them apart.
    """

    action: np.ndarray
    """int `[E, T]` (or `[E, T, ...]` for other action spaces)."""
    reward: np.ndarray
    """float64 `[E, T]`."""
    length: np.ndarray
    """int `[E]`, steps of each episode."""
    num_actions: int = 0
    """Number of discrete actions, K; 0 for other action spaces."""
    info: dict[str, np.ndarray] = field(default_factory=dict)
    """What the environment said at each step, e.g. `regret`, `[E, T]`."""
    boards: np.ndarray | None = None
    """Of board games: what was seen before each step and at the end, `[E, T + 1, ...]`."""
    observations: Any = None
    """What the first episodes showed before each step and at the end, a tree `[<= E, T + 1, ...]`;
    None where it was not asked for."""

    @property
    def valid(self) -> np.ndarray:
        """Return bool `[E, T]`: true where a step was taken."""
        return np.arange(self.reward.shape[1]) < self.length[:, None]

    def total(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of per-step `values [E, T]` over the steps of each episode, `[E]`."""
        result: np.ndarray = np.where(self.valid, values, 0).sum(1)
        return result

    def final(self, values: np.ndarray) -> np.ndarray:
        """Return per-step `values [E, T]` at the last step of each episode, `[E]`."""
        result: np.ndarray = values[np.arange(len(self.length)), self.length - 1]
        return result


@dataclass(frozen=True)
class EpisodeMetric:
    """A named function from episodes to one number for each, `[E]`.

    It applies where the episodes hold the `needs` (keys of `Episodes.info`) and, if
    `discrete`, have discrete actions.
    """

    name: str
    unit: str
    meaning: str
    function: Callable[[Episodes], np.ndarray]
    needs: tuple[str, ...] = ()
    discrete: bool = False
    weight: Callable[[Episodes], np.ndarray] | None = None
    """For a share of steps: how many steps of each episode it is a share of, `[E]`."""

    def __call__(self, episodes: Episodes) -> np.ndarray:
        """Return the metric of each episode, float64 `[E]`; nan where it is not defined."""
        return np.asarray(self.function(episodes), np.float64)

    def weights(self, episodes: Episodes) -> np.ndarray:
        """Return the weight of each episode in a mean, float64 `[E]`; 0 where it is not defined."""
        if self.weight is None:
            return np.ones(len(episodes.length))
        return np.asarray(self.weight(episodes), np.float64)

    def applies(self, episodes: Episodes) -> bool:
        """Return whether the episodes hold what the metric reads."""
        has_actions = episodes.num_actions > 0 or not self.discrete
        return has_actions and all(key in episodes.info for key in self.needs)
