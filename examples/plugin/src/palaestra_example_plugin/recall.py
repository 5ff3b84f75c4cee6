"""The environment `example/CueRecall-v0`: remember what was shown at the start of the episode."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class CueRecallEnv(gymnasium.Env[np.ndarray, int]):
    """One of K cues is shown, then nothing; the last action has to name the cue.

    The observation is the cue, one-hot [K] at the first step and zeros later, and t / T. The
    reward is 1 for the right last action. Without memory the best expected return is 1 / K.

    Args:
      K: number of cues.
      T: steps of an episode.
    """

    def __init__(self, K: int = 4, T: int = 8) -> None:
        self.K, self.T = K, T
        self.observation_space = spaces.Box(0.0, 1.0, (K + 1,), np.float32)
        self.action_space = spaces.Discrete(K)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw a cue and show it."""
        super().reset(seed=seed)
        self._cue, self._t = int(self.np_random.integers(self.K)), 0
        return self._observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take a step; the last step pays 1 for the right cue."""
        self._t += 1
        over = self._t == self.T
        return self._observation(), float(over and action == self._cue), over, False, {}

    def _observation(self) -> np.ndarray:
        x = np.zeros(self.K + 1, np.float32)
        x[self._cue] = self._t == 0
        x[-1] = self._t / self.T
        return x
