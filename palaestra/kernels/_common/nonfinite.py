"""Steps whose numbers are not finite, and which outputs they break.

In a product over a chunk a masked weight of 0 times NaN is NaN, which would carry one episode's NaN
into the next one. So non-finite steps leave the products as zeros, and the outputs that see them
are made NaN by hand.
"""

from functools import reduce
from math import isfinite

import torch
from torch import Tensor

from palaestra.kernels._common.runtime import asking_is_free
from palaestra.kernels.resets import starts


def nonfinite(*xs: Tensor) -> Tensor:
    """Return where one of `xs [..., D]` is not finite along D, bool `[...]`."""
    xs = tuple(x.detach() for x in xs)
    # On CPU a sum is far cheaper than a look at every number, and finite only where all are.
    if asking_is_free(xs[0]) and all(isfinite(x.sum()) for x in xs):
        return torch.zeros(xs[0].shape[:-1], dtype=torch.bool)
    # Not sums here: those of finite numbers may overflow.
    largest = reduce(torch.maximum, (x.abs().amax(-1) for x in xs))
    return ~(largest < torch.inf)


def nonfinite_reach(bad: Tensor, carried: Tensor, reset: Tensor) -> Tensor:
    """Return the steps that see a bad step of their episode, bool `[B, T, H]`.

    Args:
      bad: `[B, T, H]`, steps that are not finite themselves.
      carried: `[B, H]`, whether the state before the window is.
      reset: bool `[B, T]`.
    """
    t = torch.arange(reset.shape[1], device=reset.device)
    last_bad = torch.where(bad, t.unsqueeze(-1), -1)
    last_bad[:, 0] = torch.where(carried & ~reset[:, :1], 0, last_bad[:, 0])
    return last_bad.cummax(1).values >= starts(reset).unsqueeze(-1)
