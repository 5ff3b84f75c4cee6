"""What all memory environments share, one at a time: instances, infos, state."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from gymnasium.error import ResetNeeded

from palaestra.envs import noise
from palaestra.envs.instances import InstanceEnv
from palaestra.envs.memory.options import MemoryOptions
from palaestra.options import validate


class MemoryEnv(InstanceEnv, ABC):
    """Episodes that are instances (seed, index), with the right answer in the infos.

    A subclass draws the instance (`_begin`), takes a step (`_advance`), shows what the agent sees
    (`_observe`) and knows the right action (`_answer`).

    Args:
      render_mode: None, the only one.
      options: fields of `Config`.

    Raises:
      UserError: an option that is not accepted.
    """

    Config: ClassVar[type[MemoryOptions]]
    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}  # type: ignore[misc]

    def __init__(self, render_mode: str | None = None, **options: Any) -> None:
        self.options: Any = validate(self.Config, options)
        self.render_mode = render_mode
        self.observation_space = self.options.observation_space
        self.action_space = self.options.action_space
        self._t, self._over = 0, True

    @abstractmethod
    def _begin(self, key: np.ndarray) -> None:
        """Draw the instance with `key [1]` and go to its start."""

    @abstractmethod
    def _advance(self, action: int) -> tuple[float, bool, bool]:
        """Take step `_t`; return reward, terminated, truncated."""

    @abstractmethod
    def _observe(self) -> Any:
        """Return what is seen before step `_t`; the array is new."""

    @abstractmethod
    def _answer(self) -> int:
        """Return the best action of step `_t`, or -1 where every action does the same."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start the next instance; a seed starts at index 0, `options={"index": i}` at index i.

        Raises:
          UserError: a seed, option or index that is not accepted.
        """
        self._choose(seed, options)
        self._t, self._over = 0, False
        self._begin(self._key())
        return self._observe(), self._info()

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Act.

        Raises:
          ResetNeeded: the episode has ended, or none has begun.
          UserError: the action is out of range.
        """
        if self._over:
            raise ResetNeeded("the episode has ended or none has begun: call reset() first.")
        reward, terminated, truncated = self._advance(self._checked(action))
        self._t += 1
        self._over = terminated or truncated
        return self._observe(), reward, terminated, truncated, self._info()

    def get_state(self) -> dict[str, Any]:
        """Return what `set_state` needs to continue exactly here."""
        return self._instance_state() | {"t": self._t, "over": self._over}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `get_state` returned."""
        if self._set_instance(state):
            self._begin(self._key())
        self._t, self._over = int(state["t"]), bool(state["over"])

    def _key(self) -> np.ndarray:
        return noise.instance_keys(
            np.array([self._seed], np.uint64), np.array([self._index], np.uint64)
        )

    def _info(self) -> dict[str, Any]:
        return {
            "answer": -1 if self._over else self._answer(),
            "t": self._t,
            "instance_seed": self._seed,
            "instance_index": self._index,
        }
