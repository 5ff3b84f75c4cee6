"""What all memory environments share, N at a time: instances, infos, autoreset, state."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode

from palaestra.envs.instances import Infos, InstanceVectorEnv
from palaestra.envs.memory.options import MemoryOptions
from palaestra.options import validate

StepResult = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Infos]


class MemoryVectorEnv(InstanceVectorEnv, ABC):
    """N memory environments with autoreset in the same step.

    A step that ends an episode returns the first observation of the row's next one;
    `infos["final_obs"]` and `infos["final_info"]` are dense and belong to the ended episode where
    `infos["_final_obs"]` is true.

    Args:
      num_envs: rows, N.
      options: fields of `Config`.

    Raises:
      UserError: an option that is not accepted, or no rows.
    """

    Config: ClassVar[type[MemoryOptions]]
    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": [],
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(self, num_envs: int, **options: Any) -> None:
        self.options: Any = validate(self.Config, options)
        super().__init__(num_envs, self.options.observation_space, self.options.action_space)
        self._t = np.zeros(num_envs, np.int64)

    @abstractmethod
    def _begin(self, rows: np.ndarray, keys: np.ndarray) -> None:
        """Draw the instances with `keys [M]` in `rows [M]` and go to their starts."""

    @abstractmethod
    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Take step `_t` of every row; return rewards, terminated, truncated `[N]`, all new."""

    @abstractmethod
    def _observe(self) -> np.ndarray:
        """Return what is seen before step `_t`, `[N, ...]`; the array is new."""

    @abstractmethod
    def _answer(self) -> np.ndarray:
        """Return the best actions of step `_t`, -1 where it does not matter, new int64 `[N]`."""

    def _restart(self) -> tuple[np.ndarray, Infos]:
        self._t[:] = 0
        self._begin_rows(np.arange(self.num_envs))
        return self._observe(), self._infos(self._answer())

    def step(self, actions: np.ndarray) -> StepResult:
        """Act in each row.

        Raises:
          ResetNeeded: nothing has begun.
          UserError: the actions are not N accepted actions.
        """
        if self._seeds is None:
            raise ResetNeeded("no episode has begun: call reset() first.")
        rewards, terminated, truncated = self._advance(self._checked(actions))
        self._t += 1
        done = terminated | truncated
        rows = np.flatnonzero(done)
        if not rows.size:
            infos = self._infos(self._answer())
            return self._observe(), rewards, terminated, truncated, infos
        ended = {
            "final_obs": self._observe(),
            "_final_obs": done,
            "final_info": self._infos(np.where(done, -1, self._answer())),
            "_final_info": done.copy(),
        }
        self._indices[rows] += 1
        self._t[rows] = 0
        self._begin_rows(rows)
        infos = self._infos(self._answer()) | ended
        return self._observe(), rewards, terminated, truncated, infos

    def get_state(self) -> dict[str, Any]:
        """Return what `set_state` needs to continue exactly here."""
        return self._instance_state() | {"t": self._t.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `get_state` returned."""
        if self._set_instance(state):
            self._begin_rows(np.arange(self.num_envs))
        self._t = np.array(state["t"], np.int64)

    def _begin_rows(self, rows: np.ndarray) -> None:
        self._begin(rows, self._keys(rows))

    def _infos(self, answers: np.ndarray) -> Infos:
        return {
            "answer": answers,
            "t": self._t.copy(),
            **self._instance_infos(),
        }
