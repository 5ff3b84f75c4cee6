"""UCB: the arm of highest empirical mean plus an exploration bonus."""

from typing import Literal

import numpy as np
from pydantic import Field

from palaestra.agents.base import Mode
from palaestra.agents.reference.baseline import BanditBaseline, CountingActor, PullState, argmax
from palaestra.options import Options


class _UCBActor(CountingActor):
    def choose(
        self, state: PullState, observation: np.ndarray, rng: np.random.Generator, mode: Mode
    ) -> tuple[np.ndarray, PullState]:
        untried = state.counts == 0
        n = np.maximum(state.counts, 1)
        best = argmax(np.where(untried, 0.0, state.means) + self._bonus(n), rng)
        return np.where(untried.any(1), untried.argmax(1), best), state

    def _bonus(self, n: np.ndarray) -> np.ndarray:
        if self.config.bonus == "inv_sqrt":
            return np.sqrt(1 / n)
        t = n.sum(1, keepdims=True)
        result: np.ndarray = np.sqrt(self.config.alpha * np.log(t) / n)
        return result


class UCB(BanditBaseline):
    """Untried arms first, in list order; then mean + bonus, ties broken at random.

    Bonus `inv_sqrt` is sqrt(1/n); `alpha` is sqrt(alpha ln t / n), with t the pulls so far: alpha
    is inside the root, and 2 is UCB1 (Auer et al. 2002, doi 10.1023/A:1013689704352).
    """

    class Config(Options):
        """Options of UCB."""

        bonus: Literal["inv_sqrt", "alpha"] = Field(
            "inv_sqrt", description="sqrt(1/n), or sqrt(alpha ln t / n)"
        )
        alpha: float = Field(0.5, ge=0, description="factor inside the root; bonus `alpha` only")

    actor_class = _UCBActor
