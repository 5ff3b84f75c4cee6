"""A plug-in module whose environment is slow while a file `hold` exists, and fails for a seed."""

from pathlib import Path
from time import sleep
from typing import Any

import gymnasium
import numpy as np

from palaestra.registry import register
from palaestra.seeding import Role, integer


@register("env", "tests/Walk-v0")
class Walk(gymnasium.Env):
    """A random walk whose reward is the last step; seed `fails_for` of the user raises."""

    observation_space = gymnasium.spaces.Box(-9, 9, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, fails_for: int | None = None) -> None:
        self.bad_seed = None if fails_for is None else integer(fails_for, Role.ENV, 0)
        self.bad = False

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.bad = self.bad or (seed is not None and seed == self.bad_seed)
        self.place, self.t = np.zeros(2, np.float32), 0
        return self.place.copy(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        if self.bad and self.t == 5:
            raise RuntimeError("the emulator has crashed")
        if Path("hold").exists():
            sleep(0.05)
        change = self.np_random.normal(size=2).astype(np.float32)
        self.place = np.clip(self.place + change, -9, 9)
        reward = float(change[0] if action else change[1])
        return self.place.copy(), reward, self.t >= 12, False, {}
