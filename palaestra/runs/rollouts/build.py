"""The agent and the environments that a configuration names."""

from typing import Any

from gymnasium.vector import VectorEnv

from palaestra.agents.base import Agent, build
from palaestra.agents.setup import Setup
from palaestra.envs.close import safe_close
from palaestra.runs.config import RunConfig


def build_agent(
    config: RunConfig,
    observation_space: Any,
    action_space: Any,
    *,
    device: str | None = None,
    run_id: str = "",
) -> Agent:
    """Return the configured agent for the spaces of one environment.

    Args:
      config: the run's configuration.
      observation_space: of one environment.
      action_space: of one environment.
      device: as the configuration has it; None takes the configuration's.
      run_id: of the run that the agent trains in.

    Raises:
      UserError: options or spaces that do not fit, or a device that is not there.
    """
    from palaestra.agents.device import resolve_device
    from palaestra.policies.base import PolicySpec

    options = {key: value for key, value in config.agent.items() if key != "name"}
    spec = None
    if config.policy is not None:
        policy = {key: value for key, value in config.policy.items() if key != "name"}
        spec = PolicySpec(config.policy["name"], policy)
    setup = Setup(
        observation_space,
        action_space,
        spec,
        config.seed,
        config.total_steps,
        resolve_device(device or config.device),
        run_id,
    )
    return build(config.agent["name"], setup, options)


def make_envs(config: RunConfig, count: int, **options: Any) -> VectorEnv:
    """Return `count` of the run's training environments with its wrappers, as one.

    `options` replace those of the configuration.
    """
    from palaestra.envs import make_vec

    env = config.env
    discount = float(config.agent.get("gamma", 0.99))
    return make_vec(env.id, count, env.wrappers, discount, **{**env.options, **options})


def environment_spaces(config: RunConfig) -> tuple[Any, Any]:
    """Return observation and action space of one training environment."""
    env = make_envs(config, 1)
    safe_close(env)
    return env.single_observation_space, env.single_action_space
