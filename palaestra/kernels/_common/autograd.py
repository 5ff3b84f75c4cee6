"""What every backward direction that is written by hand has in common."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from palaestra.kernels._common.runtime import no_autocast

Backward = Callable[..., Any]


def by_hand(backward: Backward) -> Backward:
    """Decorate `backward` of an autograd function: types of inputs are kept, one derivative exists.

    Autocast, which may be on where the caller goes back, does not reach into it. A second
    derivative would lack the path through `backward`; `torch.autograd.grad` says nothing about it,
    so what asks for one is refused at once.

    Raises:
      RuntimeError: the first derivative was asked for with `create_graph=True`.
    """
    once = once_differentiable(backward)

    @wraps(backward)
    def checked(ctx: Any, *grads: Tensor | None) -> Any:
        # Compiled graphs refuse by themselves, and are recorded with gradients on.
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise RuntimeError(
                "create_graph: an operator that reads a window at once has no second derivatives; "
                "its recurrent form has those that torch has."
            )
        device = next((x.device for x in grads if x is not None), torch.device("cpu"))
        with no_autocast(device):
            return once(ctx, *grads)

    return checked
