"""LinUCB: a ridge regression for each arm and a bonus for directions seldom seen."""

from dataclasses import dataclass, replace

import numpy as np
from pydantic import ConfigDict, Field

from palaestra.agents.base import Mode
from palaestra.agents.reference.baseline import BanditActor, BanditBaseline, PullState, argmax
from palaestra.options import Options


@dataclass
class LinearState(PullState):
    """The regressions of all arms."""

    inverse: np.ndarray
    """float64 `[N, K, d, d]`, A_a^-1 with A_a = lambda I + sum x x^T."""
    b: np.ndarray
    """float64 `[N, K, d]`, sum (r - r0) x."""
    x_tm1: np.ndarray
    """float64 `[N, d]`, the context of the last pull."""


class _LinUCBActor(BanditActor[LinearState]):
    def initial_state(self, batch: int) -> LinearState:
        K, d = self.layout.num_arms, self.layout.num_features
        inverse = np.broadcast_to(np.eye(d) / self.config.lambda_, (batch, K, d, d)).copy()
        zeros = np.zeros((batch, K))
        return LinearState(
            zeros, zeros.copy(), inverse, np.zeros((batch, K, d)), np.zeros((batch, d))
        )

    def learn(self, state: LinearState, pulled: np.ndarray, reward: np.ndarray) -> LinearState:
        x = state.x_tm1
        Ax = np.einsum("nkij,nj->nki", state.inverse, x)
        gain = pulled / (1 + np.einsum("nki,ni->nk", Ax, x))  # Sherman-Morrison, pulled arms only
        return replace(
            super().learn(state, pulled, reward),
            inverse=state.inverse - gain[..., None, None] * Ax[..., :, None] * Ax[..., None, :],
            b=state.b + (pulled * (reward - self.config.r0)[:, None])[..., None] * x[:, None, :],
        )

    def choose(
        self, state: LinearState, observation: np.ndarray, rng: np.random.Generator, mode: Mode
    ) -> tuple[np.ndarray, LinearState]:
        x = self.layout.context(observation)
        Ax = np.einsum("nkij,nj->nki", state.inverse, x)
        score = np.einsum("nki,nki->nk", Ax, state.b)
        if mode == "sample":
            score += self.config.alpha * np.sqrt(np.einsum("nki,ni->nk", Ax, x))
        return argmax(score, rng), replace(state, x_tm1=x)


class LinUCB(BanditBaseline):
    """Disjoint LinUCB: x^T A_a^-1 b_a + alpha sqrt(x^T A_a^-1 x), ties broken at random.

    Li et al., "A contextual-bandit approach to personalized news article recommendation" (arXiv
    1003.0146). Rewards far from zero start pessimistic: centre them with `r0`. "greedy" leaves the
    bonus out.

    Raises:
      UserError: the observation holds no context.
    """

    class Config(Options):
        """Options of LinUCB."""

        # `lambda` is a keyword of the language, but the name of the ridge in the literature.
        model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

        alpha: float = Field(0.5, ge=0, description="weight of the bonus")
        lambda_: float = Field(1.0, gt=0, alias="lambda", description="ridge of the regression")
        r0: float = Field(0.0, description="subtracted from every reward before the regression")

    actor_class = _LinUCBActor
    contextual = True
