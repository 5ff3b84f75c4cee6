"""Stochastic gradient descent over all parameters of a module as one vector."""

from typing import ClassVar

from pydantic import Field, model_validator
from torch import Tensor

from palaestra.agents.optimizers.base import FlatOptimizer
from palaestra.options import Options


class SGDConfig(Options):
    """Options of stochastic gradient descent."""

    momentum: float = Field(0.0, ge=0, lt=1, description="decay of the summed gradients; 0: none")
    nesterov: bool = Field(False, description="Nesterov's momentum")

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "SGDConfig":
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class FlatSGD(FlatOptimizer):
    """b = momentum b + g;  theta -= lr b, or lr (g + momentum b) with Nesterov's momentum.

    Sutskever et al., "On the importance of initialization and momentum in deep learning" (2013), in
    the form that torch gives it.
    """

    Config: ClassVar[type[Options]] = SGDConfig

    def moment_names(self) -> tuple[str, ...]:
        """Return the summed gradients, where there is momentum."""
        return ("momentum",) if self.config.momentum else ()

    def _update(self, learning_rate: float, skip: Tensor) -> None:
        # NaN times 0 is NaN: what is skipped is filled with zeros.
        g = self._grad.masked_fill_(skip.bool(), 0.0)
        taken = 1 - skip.to(g.dtype)
        if momentum := self.config.momentum:
            b = self._moments["momentum"]
            b.mul_(1 - (1 - momentum) * taken).add_(g)
            g = g + momentum * b if self.config.nesterov else b
        self._vector.sub_(g * (learning_rate * taken))
        self._steps.add_(taken)
