"""The agent and the spaces that a configuration names."""

from typing import Any

from palaestra.agents.base import Agent, build
from palaestra.agents.setup import Setup
from palaestra.runs.config import RunConfig


def build_agent(config: RunConfig, observation_space: Any, action_space: Any) -> Agent:
    """Return the configured agent for the spaces of one environment."""
    from palaestra.policies.base import PolicySpec

    options = {key: value for key, value in config.agent.items() if key != "name"}
    spec = None
    if config.policy is not None:
        policy = {key: value for key, value in config.policy.items() if key != "name"}
        spec = PolicySpec(config.policy["name"], policy)
    setup = Setup(observation_space, action_space, spec, config.seed, config.total_steps)
    return build(config.agent["name"], setup, options)


def environment_spaces(config: RunConfig) -> tuple[Any, Any]:
    """Return observation and action space of one training environment."""
    from palaestra.envs import make_vec

    env = make_vec(config.env.id, 1, config.env.wrappers, **config.env.options)
    env.close()
    return env.single_observation_space, env.single_action_space
