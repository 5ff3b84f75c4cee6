"""Contextual bandits over rated films, one and N at a time."""

from typing import Any, ClassVar

import numpy as np

from palaestra.envs.bandits.horizon import HorizonEnv
from palaestra.envs.bandits.horizon_vector import HorizonVectorEnv
from palaestra.envs.contextual.task import RatingsTask


class RatingsEnv(HorizonEnv):
    """A contextual bandit of one task."""

    Config: ClassVar[type[RatingsTask]]

    def __init__(self, render_mode: str | None = None, **options: Any) -> None:
        self.task = self.Config.from_options(options)
        task, bound = self.task, self.task.context_bound()
        self.action_names = task.action_names()
        super().__init__(
            task.K, task.T, task.observation, task.reward_range(), (-bound, bound), render_mode
        )

    def _begin(self) -> None:
        rewards, contexts = self.task.episodes(np.array([self._seed]), np.array([self._index]))
        self._rewards, self._contexts = rewards[0].tolist(), contexts[0]

    def _pull(self, action: int) -> tuple[float, float, float]:
        rewards = self._rewards[self._t]
        return rewards[action], rewards[action], max(rewards)

    def _context(self) -> np.ndarray:
        return self._contexts[self._t]


class RatingsVectorEnv(HorizonVectorEnv):
    """N contextual bandits of one task."""

    Config: ClassVar[type[RatingsTask]]

    def __init__(self, num_envs: int, **options: Any) -> None:
        self.task = self.Config.from_options(options)
        task, bound = self.task, self.task.context_bound()
        self.action_names = task.action_names()
        super().__init__(
            num_envs, task.K, task.T, task.observation, task.reward_range(), (-bound, bound)
        )
        self._rows = np.arange(num_envs)

    def _begin(self) -> None:
        self._rewards, self._contexts = self.task.episodes(self._seeds, self._indices)  # type: ignore[arg-type]
        self._best = self._rewards.max(axis=2)

    def _pull(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rewards = self._rewards[self._rows, self._t, actions]
        return rewards, rewards.copy(), self._best[:, self._t].copy()

    def _context(self) -> np.ndarray:
        return self._contexts[:, self._t]
