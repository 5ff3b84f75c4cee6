"""A worker: one collector with its share of a run's environments, and what it hands over."""

import time
from dataclasses import dataclass
from typing import Any, Protocol

from palaestra.agents.loop import EpisodeBatch
from palaestra.envs.close import safe_close
from palaestra.envs.rows import frames_per_step
from palaestra.envs.state import wrapper_statistics
from palaestra.envs.wrappers.statistics import Statistics
from palaestra.experience.fragment import Fragment
from palaestra.experience.weights import Weights
from palaestra.runs.config import RunConfig, import_plugins
from palaestra.runs.rollouts.build import build_agent, make_envs
from palaestra.runs.rollouts.collector import Collector
from palaestra.seeding import Role, generator, integer


@dataclass
class Rollout:
    """One fragment and the episodes that ended in it, as a worker hands them over."""

    fragment: Fragment
    episodes: EpisodeBatch
    worker: int
    """Which worker it is from."""
    seconds: float
    """Time spent collecting, without waiting and transfer."""
    dropped: int = 0
    """Episodes left out because something in them was not finite."""


class Rollouts(Protocol):
    """Collects fragments from workers: from all in turn, or as each one is done."""

    def request(self, worker: int, weights: Weights, version: int) -> None:
        """Ask a worker for a fragment, to be collected with `weights`, the `version`-th."""

    def receive(self) -> Rollout:
        """Return the next fragment that is done, of those that were asked for."""

    def collect(self, weights: Weights, version: int) -> list[Rollout]:
        """Ask every worker for a fragment and return them in the order of the workers."""

    @property
    def restores_environments(self) -> bool:
        """Whether `state_dict` holds where the environments are."""

    @property
    def frames_per_step(self) -> int:
        """Emulator frames of one environment step."""

    def wrapper_statistics(self) -> dict[str, Statistics]:
        """Return what normalising wrappers have gathered, of all workers together."""

    def reset_environments(self) -> None:
        """Cut every episode short."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that decides the next fragments."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume exactly where `state_dict` was taken."""

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
        self.index = index
        self.steps = config.rollout.steps
        import_plugins(config.plugins)
        count = config.env.num_envs // max(1, config.rollout.workers)
        first = index * count
        env = make_envs(config, count)
        # A worker may be on a machine without the learner's GPU.
        device = None if config.agent.get("actor_device") == "learner" else "cpu"
        agent = build_agent(
            config, env.single_observation_space, env.single_action_space, device=device
        )
        # A key of its own: adding to the seed would play the episodes of another run.
        again = (attempt,) if attempt else ()
        self.collector = Collector(
            env,
            agent.make_actor(index, max(1, config.rollout.workers)),
            generator(config.seed, Role.ACTING, index, *again),
            [integer(config.seed, Role.ENV, row, *again) for row in range(first, first + count)],
            first,
            config.env.reset_at_checkpoint,
            type(agent).infos,
            config.env.on_bad_transition,
        )

    @property
    def restores_environments(self) -> bool:
        """Whether the state holds where the environments are."""
        return self.collector.restores_environments

    @property
    def frames_per_step(self) -> int:
        """Emulator frames of one environment step."""
        return frames_per_step(self.collector.env)

    def wrapper_statistics(self) -> dict[str, Statistics]:
        """Return what normalising wrappers have gathered."""
        return wrapper_statistics(self.collector.env)

    def reset_environments(self) -> None:
        """Cut every episode short."""
        self.collector.reset_environments()

    def collect(self, weights: Weights | None, version: int) -> Rollout:
        """Return the next fragment, collected with `weights`; None keeps those of the last one."""
        start = time.perf_counter()
        if weights is not None:
            self.collector.actor.load_weights(weights, version)
        dropped = self.collector.dropped
        fragment, episodes = self.collector.collect(self.steps)
        fragment.version = version
        return Rollout(
            fragment,
            episodes,
            self.index,
            time.perf_counter() - start,
            self.collector.dropped - dropped,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the collector's state."""
        return self.collector.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a collector's state."""
        self.collector.load_state_dict(state)

    def close(self) -> None:
        """Close the environments."""
        safe_close(self.collector.env)
