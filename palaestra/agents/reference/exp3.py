"""Exp3: exponential weights on importance-weighted rewards, for adversarial bandits."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from palaestra.agents.base import Mode
from palaestra.agents.reference.baseline import BanditActor, BanditBaseline, PullState, argmax
from palaestra.options import Options


@dataclass
class Exp3State(PullState):
    """Weights of the arms."""

    log_weights: np.ndarray
    """float64 `[N, K]`, largest 0 in each row."""
    p_tm1: np.ndarray
    """float64 `[N]`, probability with which the last arm was drawn."""


class _Exp3Actor(BanditActor[Exp3State]):
    def initial_state(self, batch: int) -> Exp3State:
        zeros = np.zeros((batch, self.layout.num_arms))
        return Exp3State(zeros, zeros.copy(), zeros.copy(), np.ones(batch))

    def learn(self, state: Exp3State, pulled: np.ndarray, reward: np.ndarray) -> Exp3State:
        c = self.config
        x = np.clip((reward - c.reward_low) / (c.reward_high - c.reward_low), 0.0, 1.0)
        step = c.gamma / self.layout.num_arms * x / state.p_tm1
        log_w = state.log_weights + pulled * step[:, None]
        log_w = log_w - log_w.max(1, keepdims=True)  # only ratios count; keeps exp in range
        return replace(super().learn(state, pulled, reward), log_weights=log_w)

    def choose(
        self, state: Exp3State, observation: np.ndarray, rng: np.random.Generator, mode: Mode
    ) -> tuple[np.ndarray, Exp3State]:
        w = np.exp(state.log_weights)
        gamma, K = self.config.gamma, self.layout.num_arms
        p = (1 - gamma) * w / w.sum(1, keepdims=True) + gamma / K
        arm = argmax(p, rng) if mode == "greedy" else sample_rows(p, rng)
        return arm, replace(state, p_tm1=p[np.arange(len(arm)), arm])


def sample_rows(p: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return one index for each row of `p [N, K]`, drawn with the row's probabilities."""
    cumulative = p.cumsum(1)
    result: np.ndarray = (rng.random((len(p), 1)) * cumulative[:, -1:] >= cumulative).sum(1)
    return result


class Exp3(BanditBaseline):
    """p = (1 - gamma) w / sum w + gamma / K, w_a *= exp(gamma x_a / (p_a K)) for the pulled arm.

    Rewards are scaled to x in [0, 1] by `reward_low` and `reward_high`, and clipped. Auer et al.,
    "The nonstochastic multiarmed bandit problem" (doi 10.1137/S0097539701398375).
    """

    class Config(Options):
        """Options of Exp3."""

        gamma: float = Field(0.1, gt=0, le=1, description="share of uniform play, and step size")
        reward_low: float = Field(0.0, description="reward that counts as 0")
        reward_high: float = Field(1.0, description="reward that counts as 1")

        @model_validator(mode="after")
        def _ordered(self) -> Self:
            if self.reward_low >= self.reward_high:
                raise ValueError("reward_low must be below reward_high")
            return self

    actor_class = _Exp3Actor
