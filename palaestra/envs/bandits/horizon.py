"""What all bandits share, one at a time: T pulls of K arms, instances, infos, state."""

from abc import ABC, abstractmethod
from operator import index as as_integer
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Discrete

from palaestra.envs import noise
from palaestra.envs.bandits.observations import history_space
from palaestra.errors import UserError, did_you_mean


class HorizonEnv(gymnasium.Env[np.ndarray, Any], ABC):
    """T pulls of K arms, in episodes that are instances (seed, index): what all bandits share.

    A subclass draws the instance (`_begin`) and says what a pull pays (`_pull`).
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": [], "episode_sums": ("regret",)}  # type: ignore[misc]

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
        self._seed: int | None = None
        self._index = 0
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
        super().reset(seed=seed)
        start = start_index(options)
        if seed is not None:
            self._seed, self._index = noise.check_seed(seed), 0 if start is None else start
        elif self._seed is None:
            self._seed = int(self.np_random.integers(2**31))
            self._index = 0 if start is None else start
        else:
            self._index = self._index + 1 if start is None else start
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
        a = self._arm(action)
        r, expected, best = self._pull(a)
        self._pulls[a] += 1
        self._sums[a] += r
        self._t += 1
        return self._observe(a, r), r, self._t == self.T, False, self._info(expected, best)

    def get_state(self) -> dict[str, Any]:
        """Return what `set_state` needs to go on exactly here."""
        return {
            "seed": self._seed,
            "index": self._index,
            "t": self._t,
            "pulls": np.array(self._pulls, np.int64),
            "sums": np.array(self._sums, np.float64),
            # It draws the first seed, and nothing afterwards.
            "rng": self.np_random.bit_generator.state if self._seed is None else None,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` returned."""
        self._seed, self._index = state["seed"], int(state["index"])
        if self._seed is None:
            self.np_random.bit_generator.state = state["rng"]
        else:
            self._begin()
        self._t = int(state["t"])
        self._pulls = np.asarray(state["pulls"]).tolist()
        self._sums = np.asarray(state["sums"]).tolist()

    def _clear(self) -> None:
        self._t = 0
        self._pulls, self._sums = [0] * self.K, [0.0] * self.K

    def _arm(self, action: int) -> int:
        try:
            a = as_integer(action)
        except TypeError:
            a = -1
        if not 0 <= a < self.K:
            raise UserError(
                f"action: {action!r} is not accepted: an integer from 0 to {self.K - 1} is."
            )
        return a

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
