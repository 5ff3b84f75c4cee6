"""What every optimiser can do, and the flat vector that Palaestra's own ones share."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from palaestra.options import Options


class Optimizer(Protocol):
    """Changes the parameters of one module by their gradients."""

    def zero_grad(self) -> None:
        """Forget the gradients."""

    def step(self, learning_rate: float, max_grad_norm: float) -> Tensor:
        """Clip the gradient by its global norm, take a step and return the norm before clipping.

        Where the norm is infinite or not a number, parameters and moments stay as they are.
        """

    def forget(self, parameter: str, rows: Tensor) -> None:
        """Set the moments of some units to zero, as those of new ones are.

        Args:
          parameter: its name in the module.
          rows: index or mask of the first axis: the units that were reset.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return the moments by parameter name and the number of steps."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken."""


class FlatOptimizer(ABC):
    """An optimiser of all parameters as one vector, for networks of small layers.

    Parameters and gradients become views of two vectors, so that zeroing, the norm and the update
    are a few operations each, whatever the number of layers. The parameters must share one type and
    device, and the module must not be moved afterwards.

    Args:
      config: an instance of `Config`.
      module: those of its parameters that require a gradient are optimised.
      reduce: see `palaestra.agents.optimizers.make`.
    """

    Config: ClassVar[type[Options]]

    def __init__(
        self,
        config: Any,
        module: nn.Module,
        reduce: Callable[[Tensor], None] | None = None,
    ) -> None:
        self.config = config
        self._reduce = reduce
        learned = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._shapes = {name: p.shape for name, p in learned.items()}
        self._vector = torch.cat([p.detach().flatten() for p in learned.values()])
        self._grad = torch.zeros_like(self._vector)
        values, grads = self._split(self._vector), self._split(self._grad)
        for name, p in learned.items():
            p.data, p.grad = values[name], grads[name]
        self._moments = {name: torch.zeros_like(self._vector) for name in self.moment_names()}
        self._steps = torch.zeros((), dtype=torch.float32, device=self._vector.device)

    @abstractmethod
    def moment_names(self) -> tuple[str, ...]:
        """Return the names of the vectors that it keeps beside the parameters."""

    @abstractmethod
    def _update(self, learning_rate: float, skip: Tensor) -> None:
        """Change parameters, moments and `_steps` by the clipped gradient; not if `skip` is 1."""

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._grad.zero_()

    def step(self, learning_rate: float, max_grad_norm: float) -> Tensor:
        """Clip the gradient's norm, take a step and return the norm before clipping."""
        if self._reduce is not None:
            self._reduce(self._grad)
        norm: Tensor = torch.linalg.vector_norm(self._grad)
        self._grad.mul_((max_grad_norm / (norm + 1e-6)).clamp_(max=1.0))
        # A flag on the device instead of a branch, which would wait for it: infinity and NaN times
        # 0 are NaN, which is not 0.
        self._update(learning_rate, norm.mul(0.0).ne_(0.0))
        return norm

    def forget(self, parameter: str, rows: Tensor) -> None:
        """Set the moments of some units to zero; the number of steps is that of all."""
        for moment in self._moments.values():
            self._split(moment)[parameter][rows] = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the moments by parameter name, on the CPU, and the number of steps."""
        moments = {
            name: {n: x.to("cpu", copy=True) for n, x in self._split(vector).items()}
            for name, vector in self._moments.items()
        }
        return {"steps": int(self._steps), **moments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken."""
        self._steps.fill_(state["steps"])
        for name, vector in self._moments.items():
            parts = [torch.as_tensor(state[name][n]).flatten() for n in self._shapes]
            vector.copy_(torch.cat(parts))

    def _split(self, vector: Tensor) -> dict[str, Tensor]:
        """Return the views of `vector` by parameter name."""
        parts = vector.split_with_sizes([shape.numel() for shape in self._shapes.values()])
        named = zip(self._shapes.items(), parts, strict=True)
        return {name: part.view(shape) for (name, shape), part in named}
