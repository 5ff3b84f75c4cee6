"""Environments whose episodes are instances (seed, index): which one comes next.

A seed starts at index 0, `options={"index": i}` at index i, and each reset without either moves to
the next index. Row n of a vector environment with seed s plays what the single environment with
seed s plays.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from operator import index as as_integer
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

from palaestra.envs import noise
from palaestra.errors import UserError, did_you_mean

Infos = dict[str, Any]


class InstanceEnv(gymnasium.Env[Any, Any]):
    """One environment that plays instance (`_seed`, `_index`); a subclass calls `_choose`."""

    action_space: Discrete
    _seed: int | None = None
    """None until the first reset, which draws one if it is given none."""
    _index = 0

    def _choose(self, seed: int | None, options: dict[str, Any] | None) -> None:
        """Set the instance of a reset.

        Raises:
          UserError: a seed, option or index that is not accepted.
        """
        super().reset(seed=seed)
        start = start_index(options)
        if seed is not None:
            self._seed, self._index = noise.check_seed(seed), 0
        elif self._seed is None:
            self._seed, self._index = int(self.np_random.integers(2**31)), 0
        else:
            self._index += 1
        self._index = self._index if start is None else start

    def _checked(self, action: Any) -> int:
        """Return an action as an integer.

        Raises:
          UserError: it is none of the actions.
        """
        n = int(self.action_space.n)
        try:
            a = as_integer(action)
        except TypeError:
            a = -1
        if not 0 <= a < n:
            raise UserError(f"action: {action!r} is not accepted: an integer from 0 to {n - 1} is.")
        return a

    def _instance_state(self) -> dict[str, Any]:
        """Return the instance, and while there is none the generator that will draw it."""
        # The generator draws the first seed, and nothing afterwards.
        rng = self.np_random.bit_generator.state if self._seed is None else None
        return {"seed": self._seed, "index": self._index, "rng": rng}

    def _set_instance(self, state: dict[str, Any]) -> bool:
        """Take an instance from `_instance_state` and return whether there is one."""
        self._seed, self._index = state["seed"], int(state["index"])
        if self._seed is None:
            self.np_random.bit_generator.state = state["rng"]
        return self._seed is not None


class InstanceVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray], ABC):
    """N environments with Discrete actions that play instances (`_seeds [N]`, `_indices [N]`).

    Args:
      num_envs: rows, N.
      observation_space: of one row.
      action_space: of one row.

    Raises:
      UserError: no rows.
    """

    def __init__(
        self, num_envs: int, observation_space: gymnasium.Space[Any], action_space: Discrete
    ) -> None:
        if num_envs < 1:
            raise UserError(f"num_envs: {num_envs!r} is not accepted: an integer from 1 is.")
        self.num_envs = num_envs
        self.single_observation_space = observation_space
        self.single_action_space = action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self._actions = int(action_space.n)
        self._seeds: np.ndarray | None = None
        self._indices = np.zeros(num_envs, np.int64)

    @abstractmethod
    def _restart(self) -> tuple[np.ndarray, Infos]:
        """Begin the instances of all rows; return their first observations and infos."""

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
            self._indices = np.zeros(self.num_envs, np.int64)
        else:
            self._indices = self._indices + 1
        if start is not None:
            self._indices = np.full(self.num_envs, start, np.int64)
        return self._restart()

    def _check_seeds(self, seed: int | Sequence[int]) -> np.ndarray:
        if isinstance(seed, int | np.integer):
            seed = [int(seed) + n for n in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise UserError(f"seed: {len(seed)} seeds are not accepted: {self.num_envs} are.")
        return np.array([noise.check_seed(s) for s in seed], np.int64)

    def _checked(self, actions: Any) -> np.ndarray:
        """Return actions as int64 `[N]`.

        Raises:
          UserError: they are not N integers, or one is none of the actions.
        """
        a = np.asarray(actions)
        if a.dtype.kind not in "iu" or a.shape != (self.num_envs,):
            raise UserError(
                f"actions: {a.dtype} of shape {a.shape} is not accepted: integers of "
                f"shape {(self.num_envs,)} are."
            )
        # A negative action is a huge unsigned one: one comparison for both bounds.
        wrong = a.astype(np.uint64) >= self._actions
        if wrong.any():
            row = int(wrong.argmax())
            raise UserError(
                f"actions: {a[row]} in row {row} is not accepted: integers from 0 to "
                f"{self._actions - 1} are."
            )
        return a.astype(np.int64, copy=False)

    def _keys(self, rows: np.ndarray) -> np.ndarray:
        """Return the keys of the instances of `rows [M]`, uint64 `[M]`."""
        assert self._seeds is not None
        return noise.instance_keys(self._seeds[rows], self._indices[rows])

    def _instance_infos(self) -> Infos:
        return {"instance_seed": np.array(self._seeds), "instance_index": self._indices.copy()}

    def _instance_state(self) -> dict[str, Any]:
        """Return the instances, and while there are none the generator that will draw them."""
        return {
            "seed": None if self._seeds is None else self._seeds.copy(),
            "index": self._indices.copy(),
            # It draws the first seeds, and nothing afterwards.
            "rng": self.np_random.bit_generator.state if self._seeds is None else None,
        }

    def _set_instance(self, state: dict[str, Any]) -> bool:
        """Take instances from `_instance_state` and return whether there are any."""
        self._indices = np.array(state["index"], np.int64)
        if state["rng"] is None:
            self._seeds = np.array(state["seed"], np.int64)
            return True
        self._seeds = None
        self.np_random.bit_generator.state = state["rng"]
        return False


def start_index(options: dict[str, Any] | None) -> Any:
    """Return `options["index"]`, or None without it.

    Raises:
      UserError: another option, or a negative index.
    """
    for name in options or {}:
        if name != "index":
            raise UserError(f"options.{name}: unknown key; {did_you_mean(name, ['index'])}")
    start = (options or {}).get("index")
    if start is None:
        return None
    values = np.asarray(start)
    if values.dtype.kind not in "iu" or (values < 0).any():
        raise UserError(f"options.index: {start!r} is not accepted: integers from 0 are.")
    return int(start) if values.ndim == 0 else values.astype(np.int64)
