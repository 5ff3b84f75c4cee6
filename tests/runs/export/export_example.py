"""The tiny runs that the tests export, and an environment that draws itself."""

import gymnasium
import numpy as np

from palaestra.envs.suites import Suite, Task
from palaestra.registry import registry
from palaestra.runs.config import RunConfig, resolve


class Paint(gymnasium.Env):
    """Five steps; draws itself without any library."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, broken: bool = False) -> None:
        self.observation_space = gymnasium.spaces.Box(-9, 9, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self.render_mode, self.broken = render_mode, broken

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.t, self.start = 0, self.np_random.normal()
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple:
        self.t += 1
        return self._observation(), float(action[0]), False, self.t == 5, {}

    def _observation(self) -> np.ndarray:
        return np.array([self.t, self.start], np.float32)

    def render(self) -> np.ndarray:
        if self.broken:
            raise RuntimeError("no screen")
        frame = np.full((40, 400, 3), 255, np.uint8)
        frame[:, 80 * self.t : 80 * self.t + 40] = (200, 30, 30)
        return frame


gymnasium.register("tests/Paint-v0", Paint)

_SMALL = {"threads": 1, "tensorboard": False, "rollout": {"steps": 20, "address": "10.1.2.3:6379"}}

RUNS = {
    "ppo-gru": {
        "description": "A bandit agent with memory.",
        "total_steps": 320,
        "env": {"id": "palaestra/GaussianBandit-v0", "num_envs": 4, "options": {"K": 5, "T": 10}},
        "agent": {"name": "ppo", "num_epochs": 1, "minibatch_size": 40},
        "policy": {"name": "gru", "hidden_size": 8},
        "evaluation": {
            "suite": "bandit",
            "tasks": ["k5-normal-1", "k5-normal-3"],
            "mode": "sample",
            "seeds": 2,
            "episodes": 3,
            "baselines": ["ucb"],
        },
    },
    "ppo-mlp": {
        "total_steps": 320,
        "env": {"id": "CartPole-v1", "num_envs": 4},
        "agent": {"name": "ppo", "num_epochs": 1, "minibatch_size": 40},
        "policy": {"name": "mlp", "hidden_sizes": [8]},
    },
    "q-learning": {
        "total_steps": 640,
        "env": {
            "id": "palaestra/TicTacToe-v0",
            "num_envs": 8,
            "wrappers": ["action-mask"],
            "options": {"first": "alternate"},
        },
        "agent": {"name": "q-learning"},
    },
    "paint": {
        "total_steps": 160,
        "env": {"id": "tests/Paint-v0", "num_envs": 2},
        "agent": {"name": "ppo", "num_epochs": 1, "minibatch_size": 40},
        "policy": {"name": "mlp", "hidden_sizes": [8]},
    },
}

_BALANCE = Task("balance/pole", "CartPole-v1", {}, 9.0, 500.0, "by hand")
SUITES = {
    "ppo-gru": registry.get("suite", "bandit"),
    "ppo-mlp": Suite("balance", 1, (_BALANCE,), "upright as long as it goes"),
    "q-learning": registry.get("suite", "tictactoe"),
}


def config_of(name: str, **changes: object) -> RunConfig:
    return resolve({**_SMALL, **RUNS[name], **changes})
