"""Episodes that are written before they begin: questions to which the agent can only answer.

No action changes what is shown next, so that an instance is two tables, the observations and the
right answers, and a step looks up one line of each.
"""

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from palaestra.envs.memory.env import MemoryEnv
from palaestra.envs.memory.options import MemoryOptions
from palaestra.envs.memory.vector import MemoryVectorEnv

MAX_SYMBOLS = 2**15 - 1
"""Scripts are small integers, of which thousands stay in the cache of a processor."""


class ScriptOptions(MemoryOptions):
    """Options of a script."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """Return the length of an episode, T."""

    @property
    @abstractmethod
    def rewards(self) -> tuple[float, float]:
        """Return what a right and a wrong answer pay."""

    @abstractmethod
    def write(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the scripts of the instances with `keys [M]`.

        Returns:
          Observations int16 `[M, T + 1, ...]`, the last one after the end, and answers int16
          `[M, T]`, -1 where nothing is asked.
        """


class ScriptEnv(MemoryEnv):
    """One script at a time."""

    Config: ClassVar[type[ScriptOptions]]

    def __init__(self, render_mode: str | None = None, **options: Any) -> None:
        super().__init__(render_mode, **options)
        self._right, self._wrong = self.options.rewards

    def _begin(self, key: np.ndarray) -> None:
        observations, answers = self.options.write(key)
        self._observations, self._answers = observations[0], answers[0].tolist()

    def _advance(self, action: int) -> tuple[float, bool, bool]:
        answer = self._answers[self._t]
        last = self._t + 1 == len(self._answers)
        if answer < 0:
            return 0.0, last, False
        return (self._right if action == answer else self._wrong), last, False

    def _observe(self) -> Any:
        return self._observations[self._t].astype(np.int64)

    def _answer(self) -> int:
        return self._answers[self._t]


class ScriptVectorEnv(MemoryVectorEnv):
    """N scripts at a time; all have one length and begin together."""

    Config: ClassVar[type[ScriptOptions]]

    def __init__(self, num_envs: int, **options: Any) -> None:
        super().__init__(num_envs, **options)
        self._right, self._wrong = self.options.rewards

    def _begin(self, rows: np.ndarray, keys: np.ndarray) -> None:
        observations, answers = self.options.write(keys)
        # Time first: a step then reads one stretch of memory.
        self._observations = np.ascontiguousarray(observations.swapaxes(0, 1))
        self._answers = np.ascontiguousarray(answers.T)

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        t = self._t[0]
        answers = self._answers[t]
        paid = np.where(actions == answers, self._right, self._wrong)
        rewards = np.where(answers < 0, 0.0, paid)
        terminated = np.full(self.num_envs, t + 1 == self.options.steps)
        return rewards, terminated, np.zeros(self.num_envs, bool)

    def _observe(self) -> np.ndarray:
        return self._observations[self._t[0]].astype(np.int64)

    def _answer(self) -> np.ndarray:
        t = self._t[0]
        if t == self.options.steps:
            return np.full(self.num_envs, -1)
        return self._answers[t].astype(np.int64)
