"""What all bandits share, N at a time: T pulls of K arms, instances, infos, state.

All rows have one horizon and are reset together, so that time is one number.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from palaestra.envs import noise
from palaestra.envs.bandits.horizon import start_index
from palaestra.envs.bandits.observations import history_space, rl2_rows, summary_rows
from palaestra.errors import UserError

Infos = dict[str, Any]
StepResult = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Infos]


class HorizonVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray], ABC):
    """N environments of T pulls of K arms each, with autoreset in the same step.

    The step that ends the episodes returns the first observations of the next ones;
    `infos["final_obs"]` and `infos["final_info"]` belong to the ended ones.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": [],
        "episode_sums": ("regret",),
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(
        self,
        num_envs: int,
        K: int,
        T: int,
        observation: str,
        reward_range: tuple[float, float],
        context: tuple[np.ndarray, ...] = (),
    ) -> None:
        if num_envs < 1:
            raise UserError(f"num_envs: {num_envs!r} is not accepted: an integer from 1 is.")
        self.num_envs, self.K, self.T = num_envs, K, T
        self.single_action_space = Discrete(K)
        self.single_observation_space = history_space(observation, K, reward_range, context)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._observation = observation
        self._features = self.single_observation_space.low.size
        self._d = len(context[0]) if context else 0
        self._first_arm = np.arange(num_envs) * K  # where row n begins in a flat [N * K]
        self._seeds: np.ndarray | None = None
        self._indices = np.zeros(num_envs, np.int64)
        self._clear()
        self._t = T

    @abstractmethod
    def _begin(self) -> None:
        """Draw the instances (`_seeds [N]`, `_indices [N]`)."""

    @abstractmethod
    def _pull(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return rewards, expected rewards and best expected rewards `[N]` of pulls at step `_t`.

        The arrays are new: they go to the caller.
        """

    def _context(self) -> np.ndarray:
        """Return the contexts of step `_t`, `[N, d]`."""
        return np.empty((self.num_envs, 0), np.float32)

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
        elif start is None:
            self._indices = self._indices + 1
        if start is not None:
            self._indices = np.full(self.num_envs, start, np.int64)
        self._clear()
        self._begin()
        return self._first_observation(), self._infos(
            np.zeros(self.num_envs), np.zeros(self.num_envs)
        )

    def step(self, actions: np.ndarray) -> StepResult:
        """Pull an arm in each row.

        Raises:
          ResetNeeded: nothing has begun.
          UserError: the actions are not N arms.
        """
        if self._t >= self.T:
            raise ResetNeeded("no episode has begun: call reset() first.")
        a = self._arms(actions)
        r, expected, best = self._pull(a)
        cell = self._first_arm + a
        self._pulls[cell] += 1
        if self._observation == "summary":
            self._sums[cell] += r
        self._t += 1
        observation, infos = self._observe(a, r), self._infos(expected, best)
        done = self._t == self.T
        if done:
            ended = {"final_obs": observation, "final_info": infos}
            observation, infos = self.reset()
            infos |= ended
            infos["_final_obs"], infos["_final_info"] = np.ones((2, self.num_envs), bool)
        terminated = np.full(self.num_envs, done)
        return observation, r, terminated, np.zeros(self.num_envs, bool), infos

    def get_state(self) -> dict[str, Any]:
        """Return what `set_state` needs to go on exactly here."""
        return {
            "seed": None if self._seeds is None else self._seeds.copy(),
            "index": self._indices.copy(),
            "t": self._t,
            "pulls": self._pulls.reshape(self.num_envs, self.K).copy(),
            "sums": self._sums.reshape(self.num_envs, self.K).copy(),
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
            self._begin()
        self._t = int(state["t"])
        self._pulls = np.array(state["pulls"], np.int64).reshape(-1)
        self._sums = np.array(state["sums"], np.float64).reshape(-1)

    def _check_seeds(self, seed: int | Sequence[int]) -> np.ndarray:
        if isinstance(seed, int | np.integer):
            seed = [int(seed) + n for n in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise UserError(f"seed: {len(seed)} seeds are not accepted: {self.num_envs} are.")
        return np.array([noise.check_seed(s) for s in seed], np.int64)

    def _clear(self) -> None:
        self._t = 0
        self._pulls = np.zeros(self.num_envs * self.K, np.int64)
        self._sums = np.zeros(self.num_envs * self.K)

    def _arms(self, actions: np.ndarray) -> np.ndarray:
        a = np.asarray(actions)
        if a.dtype.kind not in "iu" or a.shape != (self.num_envs,):
            raise UserError(
                f"actions: {a.dtype} of shape {a.shape} is not accepted: integers of "
                f"shape {(self.num_envs,)} are."
            )
        # A negative action is a huge unsigned one: one comparison for both bounds.
        if (a.astype(np.uint64) >= self.K).any():
            raise UserError(
                f"actions: {a[(a < 0) | (a >= self.K)][0]} is not accepted: integers "
                f"from 0 to {self.K - 1} are."
            )
        return a.astype(np.int64, copy=False)

    def _first_observation(self) -> np.ndarray:
        observation = np.zeros((self.num_envs, self._features), np.float32)
        observation[:, : self._d] = self._context()
        return observation

    def _observe(self, actions: np.ndarray, rewards: np.ndarray) -> np.ndarray:
        fraction = self._t / self.T
        if self._observation == "rl2":
            history = rl2_rows(actions, rewards, fraction, self.K)
        else:
            shape = (self.num_envs, self.K)
            history = summary_rows(
                self._pulls.reshape(shape), self._sums.reshape(shape), fraction, self.T
            )
        if not self._d:
            return history
        context = self._context() if self._t < self.T else np.zeros((self.num_envs, self._d))
        return np.concatenate([context, history], axis=1, dtype=np.float32)

    def _infos(self, expected: np.ndarray, best: np.ndarray) -> Infos:
        return {
            "expected_reward": expected,
            "best_expected_reward": best,
            "regret": best - expected,
            "t": np.full(self.num_envs, self._t),
            "instance_seed": np.array(self._seeds),
            "instance_index": self._indices.copy(),
        }
