"""Environments for tests: they show what they are told to."""

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space


class Walk(gymnasium.Env[np.ndarray, Any]):
    """Walks at random; each episode ends after a random number of steps."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}  # type: ignore[misc]

    def __init__(self, size: int = 3, terminates: bool = True) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (size,), np.float64)
        self.action_space = spaces.Discrete(3)
        self.terminates = terminates

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = self.np_random.normal(5.0, 3.0, self.observation_space.shape)
        return self.place.copy(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place = self.place + self.np_random.normal(0.0, 1.0, self.observation_space.shape)
        ends = self.terminates and bool(self.np_random.random() < 0.15)
        reward = float(self.np_random.normal(2.0, 4.0)) + float(action)
        return self.place.copy(), reward, ends, False, {}


class NextStepWalks(VectorEnv[Any, Any, Any]):
    """Several walks with autoreset in the step after the end, as Gymnasium's default is."""

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # type: ignore[misc]

    def __init__(self, num_envs: int) -> None:
        self.walks = [Walk() for _ in range(num_envs)]
        self.num_envs = num_envs
        self.single_observation_space = self.walks[0].observation_space
        self.single_action_space = self.walks[0].action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.over = np.zeros(num_envs, bool)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.over[:] = False
        seeds = [None if seed is None else seed + n for n in range(self.num_envs)]
        pairs = zip(self.walks, seeds, strict=True)
        return np.stack([walk.reset(seed=one)[0] for walk, one in pairs]), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        observations, rewards, ends = [], [], []
        for walk, action, over in zip(self.walks, actions, self.over, strict=True):
            if over:
                observation, reward, end = walk.reset()[0], 0.0, False
            else:
                observation, reward, end, _, _ = walk.step(action)
            observations.append(observation)
            rewards.append(reward)
            ends.append(end)
        self.over = np.array(ends)
        cut = np.zeros(self.num_envs, bool)
        return np.stack(observations), np.array(rewards), self.over.copy(), cut, {}


class Story(gymnasium.Env[Any, Any]):
    """Tells longer and longer texts, five in an episode."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}  # type: ignore[misc]

    def __init__(self, inside: bool = False) -> None:
        text = spaces.Text(100, min_length=0, charset="abcdefghijklmnopqrstuvwxyz .=")
        self.inside = inside
        self.observation_space: Any = text
        if inside:
            self.observation_space = spaces.Dict(text=text, t=spaces.Discrete(10))
        self.action_space = spaces.Discrete(2)
        self.t = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t, self.length = 0, int(self.np_random.integers(2, 6))
        return self._tell(), {"words": "none"}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self._tell(), 1.0, self.t == self.length, False, {"words": "many"}

    def _tell(self) -> Any:
        text = "once upon a time "[: 2 * self.t] * self.t
        return {"text": text, "t": self.t} if self.inside else text
