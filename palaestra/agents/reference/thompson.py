"""Thompson sampling: draw each arm's mean from its posterior, pull the best draw."""

from typing import Any

import numpy as np
from pydantic import Field

from palaestra.agents.base import Mode
from palaestra.agents.reference.baseline import BanditBaseline, CountingActor, PullState, argmax
from palaestra.errors import UserError
from palaestra.options import Options


class _ThompsonBetaActor(CountingActor):
    def learn(self, state: PullState, pulled: np.ndarray, reward: np.ndarray) -> PullState:
        wrong = np.abs(reward * (reward - 1)) > 1e-3  # the summary's means are rounded
        if wrong.any():
            raise UserError(
                f"thompson-beta: reward {reward[wrong][0]:g}: rewards 0 and 1 are accepted; "
                "thompson-gauss takes any."
            )
        return super().learn(state, pulled, np.rint(reward))

    def choose(
        self, state: PullState, observation: np.ndarray, rng: np.random.Generator, mode: Mode
    ) -> tuple[np.ndarray, PullState]:
        a, b = 1 + state.sums, 1 + state.counts - state.sums
        belief = a / (a + b) if mode == "greedy" else rng.beta(a, b)
        return argmax(belief, rng), state


class _ThompsonGaussActor(CountingActor):
    def choose(
        self, state: PullState, observation: np.ndarray, rng: np.random.Generator, mode: Mode
    ) -> tuple[np.ndarray, PullState]:
        c = self.config
        v = 1 / (1 / c.prior_variance + state.counts / c.sigma**2)
        m = v * (c.prior_mean / c.prior_variance + state.sums / c.sigma**2)
        return argmax(m if mode == "greedy" else rng.normal(m, np.sqrt(v)), rng), state


class ThompsonBeta(BanditBaseline):
    """Posterior Beta(1 + successes, 1 + failures), for rewards 0 and 1.

    "greedy" pulls the best posterior mean.

    Raises:
      UserError: the observation allows rewards outside [0, 1], or a reward is neither 0 nor 1.
    """

    actor_class = _ThompsonBetaActor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        low, high = self.layout.reward_bounds(self.setup.observation_space)
        if low < 0 or high > 1:
            raise UserError(
                f"thompson-beta: rewards in [{low:g}, {high:g}]: rewards 0 and 1 are accepted; "
                "thompson-gauss takes any."
            )


class ThompsonGauss(BanditBaseline):
    """Normal prior on each mean, normal rewards of known sigma; any real rewards are taken.

    "greedy" pulls the best posterior mean.
    """

    class Config(Options):
        """Options of Gaussian Thompson sampling."""

        prior_mean: float = Field(0.0, description="mean of the prior on an arm's mean")
        prior_variance: float = Field(1.0, gt=0, description="variance of that prior")
        sigma: float = Field(1.0, gt=0, description="standard deviation of a reward")

    actor_class = _ThompsonGaussActor
