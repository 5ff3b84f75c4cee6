"""The loop of Palaestra's own agents: rollouts bring fragments, the learner learns from them."""

import time
from collections.abc import Callable
from typing import Any

from palaestra.agents.base import Learner
from palaestra.agents.loop import Iteration, Loop, join_episodes
from palaestra.experience.artifact import Artifact
from palaestra.experience.weights import Weights
from palaestra.runs.rollouts.worker import Rollouts


class RolloutLoop(Loop):
    """Every worker collects a fragment with the same weights, then the learner learns from all.

    Args:
      learner, rollouts: the two ends.
      close: ends what the agent opened for the run.
    """

    def __init__(
        self, learner: Learner, rollouts: Rollouts, close: Callable[[], None] = lambda: None
    ) -> None:
        self.learner = learner
        self.rollouts = rollouts
        self._close = close
        self.updates = 0
        self.restores_environments = rollouts.restores_environments
        self.frames_per_step = rollouts.frames_per_step

    def advance(self) -> Iteration:
        """Collect one fragment from every worker and learn from them."""
        start = time.perf_counter()
        rollouts = self.rollouts.collect(self.learner.weights(), self.updates)
        collected = time.perf_counter()
        fragments = [rollout.fragment for rollout in rollouts]
        filled = [fragment for fragment in fragments if fragment.decisions]
        # Where no action has ended yet, there is nothing to learn from.
        metrics = self.learner.update(filled) if filled else {}
        if dropped := sum(rollout.dropped for rollout in rollouts):
            metrics = {**metrics, "rollout/dropped_episodes": dropped}
        self.updates += 1
        return Iteration(
            sum(fragment.env_steps for fragment in filled),
            sum(fragment.decisions for fragment in filled),
            metrics,
            join_episodes([rollout.episodes for rollout in rollouts]),
            collected - start,
            time.perf_counter() - collected,
        )

    def weights(self) -> Weights:
        """Return the learner's weights."""
        return self.learner.weights()

    def artifacts(self) -> dict[str, Artifact]:
        """Return what the learner has to show."""
        return self.learner.artifacts()

    def wrapper_statistics(self) -> dict[str, Any]:
        """Return what normalising wrappers have gathered, of all workers together."""
        return self.rollouts.wrapper_statistics()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both ends."""
        return {
            "learner": self.learner.state_dict(),
            "rollouts": self.rollouts.state_dict(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume exactly where `state_dict` was taken."""
        self.learner.load_state_dict(state["learner"])
        self.rollouts.load_state_dict(state["rollouts"])
        self.updates = state["updates"]

    def reset_environments(self) -> None:
        """Cut every episode short."""
        self.rollouts.reset_environments()

    @property
    def failures(self) -> list[dict[str, Any]]:
        """One record for each restart of a worker."""
        return getattr(self.rollouts, "failures", [])

    def close(self) -> None:
        """Close the environments and end the workers."""
        try:
            self.rollouts.close()
        finally:
            self._close()
