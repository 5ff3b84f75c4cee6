"""What a contextual bandit over rated films is, and how its users are drawn.

Protocol: an instance (seed, index) is a stream of T users, drawn with replacement. Step t shows the
features of user t, and a pull pays the rating of that user for the film, without noise. The
regret of a step is measured against the best film for its user.
"""

from abc import abstractmethod
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field

from palaestra.envs import noise
from palaestra.options import Options, validate

USERS = np.uint64(2)
"""Which stream of an instance numbers its users; 0 and 1 are the means and rewards of bandits."""


class RatingsTask(Options):
    """The distribution over instances of one contextual bandit, and its options."""

    K: int = Field(5, ge=2, description="Number of arms, which are films.")
    T: int = Field(50, ge=1, description="Horizon: users per episode.")
    observation: Literal["rl2", "summary"] = Field(
        "rl2", description="What follows the context: last pull, or counts and means of all arms."
    )

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> Self:
        """Return the task with these options.

        Raises:
          UserError: an unknown option, or a value that is not accepted.
        """
        return validate(cls, options)

    @abstractmethod
    def action_names(self) -> tuple[str, ...]:
        """Return the titles of the K films."""

    @abstractmethod
    def context_bound(self) -> np.ndarray:
        """Return the largest absolute value of each feature, `[d]`."""

    @abstractmethod
    def reward_range(self) -> tuple[float, float]:
        """Return bounds that no reward exceeds."""

    @abstractmethod
    def episodes(self, seeds: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the instances (seeds `[N]`, indices `[N]`).

        Returns:
          rewards float64 `[N, T, K]` of every film at every step, and contexts float32 `[N, T, d]`.
        """

    def users(self, seeds: np.ndarray, indices: np.ndarray, count: int) -> np.ndarray:
        """Return the users of the instances out of `count`, int64 `[N, T]`."""
        keys = noise.bits(noise.instance_keys(seeds, indices), USERS)
        return noise.integer(noise.bits(keys[:, None], np.arange(self.T, dtype=np.uint64)), count)
