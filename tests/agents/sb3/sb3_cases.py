"""Short runs of every adapted algorithm, shared by the tests of this folder."""

from typing import Any

import gymnasium
import numpy as np
import torch

from palaestra.agents.base import Agent, make
from palaestra.agents.loop import TrainingEnvs
from palaestra.envs import make_vec

REPLAY: dict[str, Any] = {
    "learning_rate": 1e-3,
    "learning_starts": 30,
    "target_update_interval": 50,
    "net_arch": [16],
}
CLIPPED: dict[str, Any] = {"n_steps": 16, "batch_size": 16, "n_epochs": 2, "net_arch": [16]}

ALGORITHMS: dict[str, dict[str, Any]] = {
    "sb3/ppo": CLIPPED,
    "sb3/a2c": {"net_arch": [16]},
    # So small a buffer is full, and overwritten, within the run.
    "sb3/dqn": REPLAY | {"buffer_size": 100},
    "sb3/qrdqn": REPLAY | {"buffer_size": 10_000, "n_quantiles": 8},
    "sb3/recurrent-ppo": CLIPPED | {"lstm_hidden_size": 8},
}
"""Options of each, small enough for a test."""

TOTAL_STEPS = 192


def agent_on(env_id: str, name: str, *, seed: int = 3, wrappers: Any = (), **options: Any) -> Agent:
    """Return an agent for the spaces of an environment."""
    env = make_vec(env_id, 1, wrappers)
    spaces = env.single_observation_space, env.single_action_space
    env.close()
    return make(name, *spaces, seed=seed, total_steps=TOTAL_STEPS, **options)


def loop_on(
    env_id: str,
    name: str,
    *,
    num_envs: int = 2,
    wrappers: Any = (),
    env_options: Any = None,
    **given: Any,
) -> Any:
    """Return a fresh training loop."""
    task = TrainingEnvs(env_id, num_envs, tuple(wrappers), env_options or {}, 16)
    return agent_on(env_id, name, wrappers=wrappers, **given).make_loop(task)


def finish(loop: Any) -> list[Any]:
    """Train to the end of the run and return its rounds."""
    rounds = []
    while loop.algorithm.num_timesteps < TOTAL_STEPS:
        rounds.append(loop.advance())
    return rounds


def assert_same(a: Any, b: Any) -> None:
    """Two trees hold the same values, bit for bit; a list is as good as a tuple."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, np.ndarray | torch.Tensor):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    else:
        assert a == b or (a != a and b != b)


def assert_same_rounds(a: list[Any], b: list[Any]) -> None:
    """Two lists of rounds agree in everything but time."""
    for x, y in zip(a, b, strict=True):
        assert_same((x.agent_steps, dict(x.metrics)), (y.agent_steps, dict(y.metrics)))
        assert_same(vars(x.episodes), vars(y.episodes))


def space_agent(
    name: str, observation: gymnasium.Space, action: gymnasium.Space, **o: Any
) -> Agent:
    """Return an agent for two spaces."""
    return make(name, observation, action, total_steps=100, **o)
