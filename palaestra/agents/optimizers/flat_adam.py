"""Adam over all parameters of a module as one vector: the same steps with far fewer operations."""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from palaestra.agents.optimizers.base import FlatOptimizer
from palaestra.options import Options


class AdamConfig(Options):
    """Options of Adam; its epsilon is that of PPO's common implementations, not 1e-8."""

    beta1: float = Field(0.9, ge=0, lt=1, description="decay of the mean gradient")
    beta2: float = Field(0.999, ge=0, lt=1, description="decay of the mean squared gradient")
    eps: float = Field(1e-5, gt=0, description="added to the root of the second moment")


class FlatAdam(FlatOptimizer):
    """Adam (arXiv 1412.6980) with clipping by the global norm."""

    Config: ClassVar[type[Options]] = AdamConfig

    def moment_names(self) -> tuple[str, ...]:
        """Return the two means."""
        return "exp_avg", "exp_avg_sq"

    def _update(self, learning_rate: float, skip: Tensor) -> None:
        # The operation of torch's fused Adam itself: what torch puts around it takes longer for a
        # small network.
        skip = skip.to(torch.float32)
        self._steps.add_(1 - skip)
        self._fused(
            [self._vector],
            [self._grad],
            [self._moments["exp_avg"]],
            [self._moments["exp_avg_sq"]],
            [],
            [self._steps],
            lr=learning_rate,
            beta1=self.config.beta1,
            beta2=self.config.beta2,
            weight_decay=self._weight_decay,
            eps=self.config.eps,
            amsgrad=False,
            maximize=False,
            found_inf=skip,
        )

    _fused: ClassVar[Any] = staticmethod(torch._fused_adam_)

    @property
    def _weight_decay(self) -> float:
        return 0.0


class AdamWConfig(AdamConfig):
    """Options of AdamW."""

    weight_decay: float = Field(
        0.01, ge=0, description="share of the weights taken off, times the learning rate"
    )


class FlatAdamW(FlatAdam):
    """Adam with decoupled weight decay (arXiv 1711.05101), of all parameters alike."""

    Config: ClassVar[type[Options]] = AdamWConfig
    _fused: ClassVar[Any] = staticmethod(torch._fused_adamw_)

    @property
    def _weight_decay(self) -> float:
        result: float = self.config.weight_decay
        return result
