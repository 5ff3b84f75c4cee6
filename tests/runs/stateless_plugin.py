"""A vector environment that offers no state, as emulators of other people do."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space


class Stateless(VectorEnv):
    """Shows random numbers; an episode has 7 steps."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int = 1) -> None:
        self.num_envs = num_envs
        self.single_observation_space = gymnasium.spaces.Box(0, 1, (2,), np.float32)
        self.single_action_space = gymnasium.spaces.Discrete(2)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self._hidden = np.random.default_rng(seed)
        self._t = 0
        return self._observe(), {}

    def step(self, actions: Any) -> Any:
        self._t += 1
        done = np.full(self.num_envs, self._t % 7 == 0)
        shown = self._observe()
        reward = shown[:, 0] * actions
        infos = {"final_obs": shown, "_final_obs": done, "final_info": {}} if done.any() else {}
        return self._observe(), reward, done, np.zeros(self.num_envs, bool), infos

    def _observe(self) -> np.ndarray:
        return self._hidden.random((self.num_envs, 2), np.float32)


gymnasium.register("tests/Stateless-v0", vector_entry_point=f"{__name__}:Stateless")
