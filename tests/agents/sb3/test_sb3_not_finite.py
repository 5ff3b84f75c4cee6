"""Runs whose numbers are no longer finite end by name."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from sb3_cases import ALGORITHMS, agent_on, finish, loop_on

from palaestra.agents.setup import Setup
from palaestra.errors import NotFiniteError
from palaestra.registry import registry

ENV = "palaestra-tests/BadReward-v0"


class BadReward(gymnasium.Env[np.ndarray, int]):
    """Pays a reward that is not a number at the 50th step of each environment, else 0."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Discrete(2)
    steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}

    def step(self, action: int) -> Any:
        self.steps += 1
        reward = np.nan if self.steps == 50 else 0.0
        return np.full(3, action, np.float32), reward, self.steps % 10 == 0, False, {}


gymnasium.register(ENV, BadReward)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_reward_that_is_not_a_number_ends_the_run_by_name(name: str) -> None:
    loop = loop_on(ENV, name, **ALGORITHMS[name])
    with pytest.raises(NotFiniteError, match=r"update \d+: .* the last checkpoint has"):
        finish(loop)
    assert loop.algorithm.num_timesteps >= 2 * 50


def test_the_run_decides_the_device_where_the_agent_leaves_it_open() -> None:
    spaces_of = BadReward.observation_space, BadReward.action_space
    cls = registry.get("agent", "sb3/ppo")
    setup = Setup(*spaces_of, total_steps=10, device="cuda:1")
    assert cls(cls.Config(), setup).algorithm_options["device"] == "cuda:1"
    assert cls(cls.Config(device="cpu"), setup).algorithm_options["device"] == "cpu"
    assert agent_on(ENV, "sb3/ppo").algorithm_options["device"] == "cpu"  # type: ignore[attr-defined]
