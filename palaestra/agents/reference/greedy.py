"""Greedy baselines: locked on the first arm, after trying all arms, and with epsilon of noise."""

import numpy as np
from pydantic import Field

from palaestra.agents.base import Mode
from palaestra.agents.reference.baseline import BanditBaseline, CountingActor, PullState, argmax
from palaestra.options import Options


class _GreedyLockedActor(CountingActor):
    def choose(
        self, state: PullState, observation: np.ndarray, rng: np.random.Generator, mode: Mode
    ) -> tuple[np.ndarray, PullState]:
        # All means are -inf before the first pull: a tie, so that pull is uniform.
        return argmax(state.means, rng), state


class _TryAllGreedyActor(CountingActor):
    def choose(
        self, state: PullState, observation: np.ndarray, rng: np.random.Generator, mode: Mode
    ) -> tuple[np.ndarray, PullState]:
        return argmax(np.where(state.counts == 0, np.inf, state.means), rng), state


class _EpsilonGreedyActor(CountingActor):
    def choose(
        self, state: PullState, observation: np.ndarray, rng: np.random.Generator, mode: Mode
    ) -> tuple[np.ndarray, PullState]:
        arm = argmax(state.means, rng)
        if mode == "greedy":
            return arm, state
        explore = rng.random(len(arm)) < self.config.epsilon
        return np.where(explore, rng.integers(self.layout.num_arms, size=len(arm)), arm), state


class GreedyLocked(BanditBaseline):
    """Uniform first pull, then the best empirical mean among tried arms: it never leaves the first.

    A floor: coverage 1/K and the regret of uniform play.
    """

    actor_class = _GreedyLockedActor


class TryAllGreedy(BanditBaseline):
    """Every arm once in random order, then the best empirical mean; ties are broken at random."""

    actor_class = _TryAllGreedyActor


class EpsilonGreedy(BanditBaseline):
    """With probability epsilon a uniform arm, else the best empirical mean among tried arms."""

    class Config(Options):
        """Options of epsilon-greedy."""

        epsilon: float = Field(0.1, ge=0, le=1, description="probability of a uniform arm")

    actor_class = _EpsilonGreedyActor
