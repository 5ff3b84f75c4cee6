"""The rollouts that a configuration asks for."""

from palaestra.runs.config import RunConfig
from palaestra.runs.rollouts.local import LocalRollouts
from palaestra.runs.rollouts.worker import Rollouts


def make_rollouts(config: RunConfig) -> Rollouts:
    """Return the rollouts that the configuration asks for; Ray is imported only for Ray workers."""
    if config.rollout.workers and config.rollout.backend == "ray":
        from palaestra.runs.rollouts.remote import RayRollouts

        return RayRollouts(config)
    return LocalRollouts(config)
