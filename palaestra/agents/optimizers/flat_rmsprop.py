"""RMSprop over all parameters of a module as one vector."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from palaestra.agents.optimizers.base import FlatOptimizer
from palaestra.options import Options


class RMSpropConfig(Options):
    """Options of RMSprop."""

    alpha: float = Field(0.99, ge=0, lt=1, description="decay of the mean squared gradient")
    eps: float = Field(1e-5, gt=0, description="added to the root of the mean square")
    momentum: float = Field(0.0, ge=0, lt=1, description="decay of the summed steps; 0: none")
    centered: bool = Field(False, description="divide by the standard deviation instead")


class FlatRMSprop(FlatOptimizer):
    """v = alpha v + (1 - alpha) g^2;  theta -= lr g / (sqrt(v) + eps).

    Hinton's lecture 6e (2012); centred as in arXiv 1308.0850: sqrt(v - m^2) with the mean gradient
    m. With momentum the steps are summed: b = momentum b + g / (sqrt(v) + eps), theta -= lr b.
    """

    Config: ClassVar[type[Options]] = RMSpropConfig

    def moment_names(self) -> tuple[str, ...]:
        """Return the mean square, and mean and summed steps where they are used."""
        used = {"mean": self.config.centered, "momentum": self.config.momentum > 0}
        return ("square", *(name for name, is_used in used.items() if is_used))

    def _update(self, learning_rate: float, skip: Tensor) -> None:
        # NaN times 0 is NaN: what is skipped is filled with zeros.
        g = self._grad.masked_fill_(skip.bool(), 0.0)
        taken = 1 - skip.to(g.dtype)
        weight = (1 - self.config.alpha) * taken
        v = variance = self._moments["square"].lerp_(g.square(), weight)
        if self.config.centered:
            m = self._moments["mean"].lerp_(g, weight)
            # Rounding can make a variance of nearly 0 negative.
            variance = v.addcmul(m, m, value=-1).clamp_(min=0)
        step = g / (variance.sqrt() + self.config.eps)
        if momentum := self.config.momentum:
            b = self._moments["momentum"]
            step = b.mul_(1 - (1 - momentum) * taken).add_(step)
        self._vector.sub_(step * (learning_rate * taken))
        self._steps.add_(taken)
