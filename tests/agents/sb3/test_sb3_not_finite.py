"""Runs whose numbers are no longer finite end by name."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_cases import ALGORITHMS, agent_on, finish, loop_on

from palaestra.agents.setup import Setup
from palaestra.errors import NotFiniteError
from palaestra.registry import registry

ENV = "palaestra-tests/Faulty-v0"


class Faulty(gymnasium.Env[np.ndarray, int]):
    """Pays 0, and once, at the 50th step of each environment, what it is told; shows zeros.

    Args:
      reward: of that step.
      shown: observed at that step, which ends an episode.
    """

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, reward: float = 0.0, shown: float = 0.0) -> None:
        self.reward, self.shown, self.steps = reward, shown, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}

    def step(self, action: int) -> Any:
        self.steps += 1
        now = self.steps == 50
        seen = np.full(3, self.shown if now else 0.0, np.float32)
        return seen, self.reward if now else 0.0, False, self.steps % 10 == 0, {}


gymnasium.register(ENV, Faulty)


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize(
    ("env_options", "told"),
    [({"reward": np.nan}, "its reward is nan"), ({"shown": np.inf}, "its observation holds inf")],
)
def test_what_the_environment_returns_is_looked_at_before_it_is_learned_from(
    name: str, env_options: dict[str, float], told: str
) -> None:
    loop = loop_on(ENV, name, env_options=env_options, **ALGORITHMS[name])
    with pytest.raises(
        NotFiniteError, match=f"environment row 0, agent step 100 of the run: {told}"
    ):
        finish(loop)
    assert all(np.isfinite(weight).all() for weight in loop.weights().values())


@pytest.mark.parametrize("name", ["sb3/ppo", "sb3/a2c", "sb3/recurrent-ppo"])
def test_a_loss_that_is_not_finite_ends_the_run_by_name(name: str) -> None:
    # The reward is a finite float32, its square is none.
    loop = loop_on(ENV, name, env_options={"reward": 3e38}, **ALGORITHMS[name])
    with pytest.raises(NotFiniteError, match=r"update \d+: .* the last checkpoint has"):
        finish(loop)


@pytest.mark.parametrize("name", ["sb3/dqn", "sb3/qrdqn"])
def test_a_weight_that_is_not_finite_ends_the_run_by_name(name: str) -> None:
    loop = loop_on(ENV, name, **ALGORITHMS[name])
    parameter = next(loop.algorithm.policy.parameters())
    with torch.no_grad():
        parameter[0] = torch.nan
    with pytest.raises(NotFiniteError, match=r"update \d+: .* the last checkpoint has"):
        loop.advance()


def test_the_run_decides_the_device_where_the_agent_leaves_it_open() -> None:
    spaces_of = Faulty.observation_space, Faulty.action_space
    cls = registry.get("agent", "sb3/ppo")
    setup = Setup(*spaces_of, total_steps=10, device="cuda:1")
    assert cls(cls.Config(), setup).algorithm_options["device"] == "cuda:1"
    assert cls(cls.Config(device="cpu"), setup).algorithm_options["device"] == "cpu"
    assert agent_on(ENV, "sb3/ppo").algorithm_options["device"] == "cpu"  # type: ignore[attr-defined]
