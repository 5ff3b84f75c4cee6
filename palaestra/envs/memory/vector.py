"""What all memory environments share, N at a time: instances, infos, autoreset, state."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from palaestra.envs import noise
from palaestra.envs.bandits.horizon import start_index
from palaestra.envs.memory.options import MemoryOptions
from palaestra.errors import UserError
from palaestra.options import validate

Infos = dict[str, Any]
StepResult = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Infos]


class MemoryVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray], ABC):
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
        if num_envs < 1:
            raise UserError(f"num_envs: {num_envs!r} is not accepted: an integer from 1 is.")
        self.options: Any = validate(self.Config, options)
        self.num_envs = num_envs
        self.single_observation_space = self.options.observation_space
        self.single_action_space = self.options.action_space
        self._actions = int(self.single_action_space.n)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._seeds: np.ndarray | None = None
        self._indices = np.zeros(num_envs, np.int64)
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

    def reset(
        self,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, Infos]:
        """Start the next instance of each row.

        Args:
          seed: one seed for each row; an integer s means s, s + 1, ... A seed starts at index 0.
          options: `{"index": i}` starts at index i instead; an integer, or an array `[N]`.

        Raises:
          UserError: seeds, an option or an index that is not accepted.
        """
        start = start_index(options)
        if isinstance(start, np.ndarray) and start.shape != (self.num_envs,):
            raise UserError(
                f"options.index: shape {start.shape} is not accepted: an integer or "
                f"shape {(self.num_envs,)} is."
            )
        if seed is not None:
            self._seeds = self._check_seeds(seed)
            self._indices = np.zeros(self.num_envs, np.int64)
        elif self._seeds is None:
            self._seeds = self.np_random.integers(2**31, size=self.num_envs)
        else:
            self._indices = self._indices + 1
        if start is not None:
            self._indices = np.full(self.num_envs, start, np.int64)
        self._t[:] = 0
        self._begin(*self._instances(np.arange(self.num_envs)))
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
        self._begin(*self._instances(rows))
        infos = self._infos(self._answer()) | ended
        return self._observe(), rewards, terminated, truncated, infos

    def get_state(self) -> dict[str, Any]:
        """Return what `set_state` needs to go on exactly here."""
        return {
            "seed": None if self._seeds is None else self._seeds.copy(),
            "index": self._indices.copy(),
            "t": self._t.copy(),
            # It draws the first seeds, and nothing afterwards.
            "rng": self.np_random.bit_generator.state if self._seeds is None else None,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` returned."""
        self._indices = np.array(state["index"], np.int64)
        if state["seed"] is None:
            self._seeds = None
            self.np_random.bit_generator.state = state["rng"]
        else:
            self._seeds = np.array(state["seed"], np.int64)
            self._begin(*self._instances(np.arange(self.num_envs)))
        self._t = np.array(state["t"], np.int64)

    def _instances(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert self._seeds is not None
        return rows, noise.instance_keys(self._seeds[rows], self._indices[rows])

    def _check_seeds(self, seed: int | Sequence[int]) -> np.ndarray:
        if isinstance(seed, int | np.integer):
            seed = [int(seed) + n for n in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise UserError(f"seed: {len(seed)} seeds are not accepted: {self.num_envs} are.")
        return np.array([noise.check_seed(s) for s in seed], np.int64)

    def _checked(self, actions: np.ndarray) -> np.ndarray:
        a = np.asarray(actions)
        if a.dtype.kind not in "iu" or a.shape != (self.num_envs,):
            raise UserError(
                f"actions: {a.dtype} of shape {a.shape} is not accepted: integers of "
                f"shape {(self.num_envs,)} are."
            )
        # A negative action is a huge unsigned one: one comparison for both bounds.
        if (a.astype(np.uint64) >= self._actions).any():
            raise UserError(
                f"actions: {a[(a < 0) | (a >= self._actions)][0]} is not accepted: integers from 0 "
                f"to {self._actions - 1} are."
            )
        return a

    def _infos(self, answers: np.ndarray) -> Infos:
        return {
            "answer": answers,
            "t": self._t.copy(),
            "instance_seed": np.array(self._seeds),
            "instance_index": self._indices.copy(),
        }
