"""Rollouts: the collectors of a run, in this process or in Ray actors, behind one interface."""

import time
from dataclasses import dataclass
from typing import Any, Protocol

from palaestra.agents.base import Agent, Weights
from palaestra.agents.base import make as make_agent
from palaestra.agents.fragment import Fragment
from palaestra.agents.loop import EpisodeBatch
from palaestra.runs.collector import Collector
from palaestra.runs.config import RunConfig, import_plugins
from palaestra.seeding import Role, generator, integer


@dataclass
class Rollout:
    """One fragment and the episodes that ended in it, as a worker hands them over."""

    fragment: Fragment
    episodes: EpisodeBatch
    seconds: float
    """Time spent collecting, without waiting and transfer."""


class Rollouts(Protocol):
    """Collects one fragment from every worker, in the order of the workers."""

    def collect(self, weights: Weights, version: int) -> list[Rollout]:
        """Act with `weights`, which are the `version`-th, and return one fragment a worker."""

    @property
    def restores_environments(self) -> bool:
        """Whether `state_dict` holds where the environments are."""

    def reset_environments(self) -> None:
        """Cut every episode short."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that decides the next fragments."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken."""

    def close(self) -> None:
        """Close the environments and end the workers."""


class Worker:
    """One collector with its share of the environments: rows of worker w out of W.

    The streams of an environment depend on its global index alone, the acting stream on the
    worker's; so the same configuration gives the same fragments in-process and in Ray.

    Args:
      config: the run's configuration.
      index: which worker this is.
      attempt: how often the worker was started again without its state; it then plays other
        episodes than before.
    """

    def __init__(self, config: RunConfig, index: int, attempt: int = 0) -> None:
        self.steps = config.rollout.steps
        import_plugins(config.plugins)
        from palaestra.envs import make_vec

        count = config.env.num_envs // max(1, config.rollout.workers)
        first = index * count
        env = make_vec(config.env.id, count, config.env.wrappers, **config.env.options)
        agent = build_agent(config, env.single_observation_space, env.single_action_space)
        # A key of its own: adding to the seed would play the episodes of another run.
        again = (attempt,) if attempt else ()
        self.collector = Collector(
            env,
            agent.make_actor(),
            generator(config.seed, Role.ACTING, index, *again),
            [integer(config.seed, Role.ENV, row, *again) for row in range(first, first + count)],
            first,
            config.env.reset_at_checkpoint,
        )

    @property
    def restores_environments(self) -> bool:
        """Whether the state holds where the environments are."""
        return self.collector.restores_environments

    def reset_environments(self) -> None:
        """Cut every episode short."""
        self.collector.reset_environments()

    def collect(self, weights: Weights, version: int) -> Rollout:
        """Return the next fragment, collected with `weights`."""
        start = time.perf_counter()
        self.collector.actor.load_weights(weights)
        fragment, episodes = self.collector.collect(self.steps)
        fragment.version = version
        return Rollout(fragment, episodes, time.perf_counter() - start)

    def state_dict(self) -> dict[str, Any]:
        """Return the collector's state."""
        return self.collector.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a collector's state."""
        self.collector.load_state_dict(state)

    def close(self) -> None:
        """Close the environments."""
        self.collector.env.close()


class LocalRollouts:
    """Workers in this process, one after another."""

    def __init__(self, config: RunConfig) -> None:
        self.workers = [Worker(config, i) for i in range(max(1, config.rollout.workers))]

    def collect(self, weights: Weights, version: int) -> list[Rollout]:
        """Return one fragment from each worker."""
        return [worker.collect(weights, version) for worker in self.workers]

    @property
    def restores_environments(self) -> bool:
        """Whether the state holds where the environments are."""
        return all(worker.restores_environments for worker in self.workers)

    def reset_environments(self) -> None:
        """Cut every episode short."""
        for worker in self.workers:
            worker.reset_environments()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of every worker."""
        return {str(i): worker.state_dict() for i, worker in enumerate(self.workers)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the state of every worker."""
        for i, worker in enumerate(self.workers):
            worker.load_state_dict(state[str(i)])

    def close(self) -> None:
        """Close the environments."""
        for worker in self.workers:
            worker.close()


def build_agent(config: RunConfig, observation_space: Any, action_space: Any) -> Agent:
    """Return the configured agent for the spaces of one environment."""
    from palaestra.policies.base import PolicySpec

    options = {key: value for key, value in config.agent.items() if key != "name"}
    spec = None
    if config.policy is not None:
        policy = {key: value for key, value in config.policy.items() if key != "name"}
        spec = PolicySpec(config.policy["name"], policy)
    return make_agent(
        config.agent["name"],
        observation_space,
        action_space,
        policy=spec,
        seed=config.seed,
        total_steps=config.total_steps,
        **options,
    )


def make_rollouts(config: RunConfig) -> Rollouts:
    """Return the rollouts that the configuration asks for; Ray is imported only for Ray workers."""
    if config.rollout.workers and config.rollout.backend == "ray":
        from palaestra.runs.ray_rollouts import RayRollouts

        return RayRollouts(config)
    return LocalRollouts(config)
