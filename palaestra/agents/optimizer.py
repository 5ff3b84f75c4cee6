"""Adam over all parameters of a module as one vector: the same steps with far fewer operations."""

from typing import Any

import torch
from torch import Tensor, nn


class FlatAdam:
    """Adam (arXiv 1412.6980) with clipping by the global norm, for networks of small layers.

    Parameters and gradients become views of two vectors, so that zeroing, the norm and the update
    are one operation each, whatever the number of layers. The parameters must share one type and
    device, and the module must not be moved afterwards.

    Args:
      module: its parameters are optimised.
      learning_rate: step size of the first step.
      eps: added to the root of the second moment.
    """

    def __init__(self, module: nn.Module, learning_rate: float, eps: float) -> None:
        self._names = {name: p.shape for name, p in module.named_parameters()}
        parameters = list(module.parameters())
        self._vector = torch.cat([p.detach().flatten() for p in parameters])
        self._vector.grad = torch.zeros_like(self._vector)
        for p, values, grads in zip(
            parameters,
            self._split(self._vector).values(),
            self._split(self._vector.grad).values(),
            strict=True,
        ):
            p.data, p.grad = values, grads
        self._adam = torch.optim.Adam([self._vector], lr=learning_rate, eps=eps, fused=True)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        assert self._vector.grad is not None
        self._vector.grad.zero_()

    def step(self, learning_rate: float, max_grad_norm: float) -> Tensor:
        """Clip the gradient's norm, take a step and return the norm before clipping."""
        assert self._vector.grad is not None
        norm = torch.linalg.vector_norm(self._vector.grad)
        self._vector.grad.mul_((max_grad_norm / (norm + 1e-6)).clamp_(max=1.0))
        self._adam.param_groups[0]["lr"] = learning_rate
        self._adam.step()
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Return the moments by parameter name and the number of steps."""
        state = self._adam.state.get(self._vector)
        if not state:
            return {"steps": 0}
        return {
            "steps": int(state["step"]),
            "exp_avg": {n: x.clone() for n, x in self._split(state["exp_avg"]).items()},
            "exp_avg_sq": {n: x.clone() for n, x in self._split(state["exp_avg_sq"]).items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken."""
        if not state["steps"]:
            self._adam.state.clear()
            return
        self._adam.state[self._vector] = {
            "step": torch.tensor(float(state["steps"])),
            "exp_avg": self._join(state["exp_avg"]),
            "exp_avg_sq": self._join(state["exp_avg_sq"]),
        }

    def _split(self, vector: Tensor) -> dict[str, Tensor]:
        """Return the views of `vector` by parameter name."""
        parts = vector.split([shape.numel() for shape in self._names.values()])
        named = zip(self._names.items(), parts, strict=True)
        return {name: part.view(shape) for (name, shape), part in named}

    def _join(self, parts: dict[str, Any]) -> Tensor:
        return torch.cat([torch.as_tensor(parts[name]).flatten() for name in self._names])
