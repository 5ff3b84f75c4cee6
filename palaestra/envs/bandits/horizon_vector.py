"""What all bandits share, N at a time: T pulls of K arms, instances, infos, state.

All rows have one horizon and are reset together, so that time is one number.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode

from palaestra.envs.bandits.observations import history_space, rl2_rows, summary_rows
from palaestra.envs.instances import Infos, InstanceVectorEnv

StepResult = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Infos]


class HorizonVectorEnv(InstanceVectorEnv, ABC):
    """N environments of T pulls of K arms each, with autoreset in the same step.

    The step that ends the episodes returns the first observations of the next ones;
    `infos["final_obs"]` and `infos["final_info"]` belong to the ended ones.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": [],
        "episode_infos": {"regret": "sum"},
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
        super().__init__(
            num_envs, history_space(observation, K, reward_range, context), Discrete(K)
        )
        self.K, self.T = K, T
        self._observation = observation
        self._features = self.single_observation_space.shape[0]  # type: ignore[index]
        self._d = len(context[0]) if context else 0
        self._first_arm = np.arange(num_envs) * K  # where row n begins in a flat [N * K]
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

    def _restart(self) -> tuple[np.ndarray, Infos]:
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
        a = self._checked(actions)
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
        """Return what `set_state` needs to continue exactly here."""
        return self._instance_state() | {
            "t": self._t,
            "pulls": self._pulls.reshape(self.num_envs, self.K).copy(),
            "sums": self._sums.reshape(self.num_envs, self.K).copy(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `get_state` returned."""
        if self._set_instance(state):
            self._begin()
        self._t = int(state["t"])
        self._pulls = np.array(state["pulls"], np.int64).reshape(-1)
        self._sums = np.array(state["sums"], np.float64).reshape(-1)

    def _clear(self) -> None:
        self._t = 0
        self._pulls = np.zeros(self.num_envs * self.K, np.int64)
        self._sums = np.zeros(self.num_envs * self.K)

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
            **self._instance_infos(),
        }
