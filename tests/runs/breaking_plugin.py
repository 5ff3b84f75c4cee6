"""A plug-in module, as a user would write it, whose environment fails."""

import time
from typing import Any

import gymnasium
import numpy as np

from palaestra.errors import UserError
from palaestra.registry import register


@register("env", "tests/Breaking-v0")
class Breaking(gymnasium.Env):
    """Fails at its fifth step."""

    observation_space = gymnasium.spaces.Box(0, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, how: str = "raise") -> None:
        self.how, self.t = how, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        if self.t == 5:
            if self.how == "user":
                raise UserError("action 7: 0 to 4 are accepted.")
            if self.how == "hang":
                time.sleep(600)
            raise RuntimeError("the emulator has crashed")
        return np.zeros(2, np.float32), 0.0, False, False, {}
