"""What all bandits share, one at a time: T pulls of K arms, instances, infos, state."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Discrete

from palaestra.envs.bandits.observations import history_space
from palaestra.envs.instances import InstanceEnv


class HorizonEnv(InstanceEnv, ABC):
    """T pulls of K arms, in episodes that are instances (seed, index): what all bandits share.

    A subclass draws the instance (`_begin`) and says what a pull pays (`_pull`).
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": [], "episode_infos": {"regret": "sum"}}  # type: ignore[misc]

    def __init__(
        self,
        K: int,
        T: int,
        observation: str,
        reward_range: tuple[float, float],
        context: tuple[np.ndarray, ...] = (),
        render_mode: str | None = None,
    ) -> None:
        self.K, self.T = K, T
        self.render_mode = render_mode
        self.action_space = Discrete(K)
        self.observation_space = history_space(observation, K, reward_range, context)
        self._observation = observation
        self._features = self.observation_space.low.size
        self._d = len(context[0]) if context else 0
        self._clear()
        self._t = T

    @abstractmethod
    def _begin(self) -> None:
        """Draw instance (`_seed`, `_index`)."""

    @abstractmethod
    def _pull(self, action: int) -> tuple[float, float, float]:
        """Return reward, expected reward and best expected reward of a pull at step `_t`."""

    def _context(self) -> np.ndarray:
        """Return the context of step `_t`, `[d]`."""
        return np.empty(0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start the next instance; a seed starts at index 0, `options={"index": i}` at index i.

        Raises:
          UserError: a seed, option or index that is not accepted.
        """
        self._choose(seed, options)
        self._clear()
        self._begin()
        return self._observe(None, 0.0), self._info(0.0, 0.0)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Pull an arm.

        Raises:
          ResetNeeded: the episode has ended, or none has begun.
          UserError: the action is not an arm.
        """
        if self._t >= self.T:
            raise ResetNeeded("the episode has ended or none has begun: call reset() first.")
        a = self._checked(action)
        r, expected, best = self._pull(a)
        self._pulls[a] += 1
        self._sums[a] += r
        self._t += 1
        return self._observe(a, r), r, self._t == self.T, False, self._info(expected, best)

    def get_state(self) -> dict[str, Any]:
        """Return what `set_state` needs to continue exactly here."""
        return self._instance_state() | {
            "t": self._t,
            "pulls": np.array(self._pulls, np.int64),
            "sums": np.array(self._sums, np.float64),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `get_state` returned."""
        if self._set_instance(state):
            self._begin()
        self._t = int(state["t"])
        self._pulls = np.asarray(state["pulls"]).tolist()
        self._sums = np.asarray(state["sums"]).tolist()

    def _clear(self) -> None:
        self._t = 0
        self._pulls, self._sums = [0] * self.K, [0.0] * self.K

    def _observe(self, action: int | None, reward: float) -> np.ndarray:
        d, K = self._d, self.K
        x = np.zeros(self._features, np.float32)
        if d and self._t < self.T:
            x[:d] = self._context()
        if action is None:
            return x
        if self._observation == "rl2":
            x[d + action] = 1.0
            x[d + K] = reward
        else:
            x[d : d + K] = [n / self.T for n in self._pulls]
            x[d + K : d + 2 * K] = [
                s / max(n, 1) for s, n in zip(self._sums, self._pulls, strict=True)
            ]
        x[-1] = self._t / self.T
        return x

    def _info(self, expected: float, best: float) -> dict[str, Any]:
        return {
            "expected_reward": expected,
            "best_expected_reward": best,
            "regret": best - expected,
            "t": self._t,
            "instance_seed": self._seed,
            "instance_index": self._index,
        }
