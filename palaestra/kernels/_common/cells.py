"""What the gated cells have in common: one input, weights and biases as torch lays them out."""

import torch
from torch import Tensor

from palaestra.kernels._common.nonfinite import nonfinite, nonfinite_reach
from palaestra.kernels._common.runtime import IMPLS, acc_dtype, asking_is_free
from palaestra.kernels._common.validate import check_layout, check_tensor

Weights = tuple[Tensor, Tensor, Tensor, Tensor]
"""w_ih `[n H, C]`, w_hh `[n H, H]`, b_ih `[n H]` and b_hh `[n H]` of a cell with n gates."""


def check_impl(impl: str) -> None:
    """Check the name of an implementation: there is the reference alone."""
    if impl not in ("auto", "reference"):
        known = "has no Triton kernels" if impl in IMPLS else "is not known"
        raise ValueError(f"impl: {impl!r} {known} here: 'auto' or 'reference'.")


def check_inputs(x: Tensor, layout: str, gates: int, weights: Weights) -> None:
    """Check inputs of `layout` and the weights that go with them."""
    w_ih, w_hh, b_ih, b_hh = weights
    check_layout("x", x, layout)
    check_layout("w_hh", w_hh, "[.., H]")
    types, H, device = (x.dtype, acc_dtype(x.dtype)), w_hh.shape[1], x.device
    rows = gates * H
    check_tensor("w_ih", w_ih, (rows, x.shape[-1]), types, device)
    check_tensor("w_hh", w_hh, (rows, H), types, device)
    check_tensor("b_ih", b_ih, (rows,), types, device)
    check_tensor("b_hh", b_hh, (rows,), types, device)


def empty_state(batch: int, width: int, like: Tensor | None) -> Tensor:
    """Return zeros `[B, H]` in the type of states; `like` gives type and device."""
    like = torch.empty(0) if like is None else like
    return torch.zeros(batch, width, dtype=acc_dtype(like.dtype), device=like.device)


def nothing_read(x: Tensor, w_hh: Tensor) -> Tensor:
    """Return the outputs of a window without rows or steps, `[B, T, H]`."""
    return x.sum(-1, keepdim=True) * w_hh[0].to(x.dtype)


def in_type(xs: tuple[Tensor, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Return all of `xs` in `dtype`."""
    # To ask is far cheaper than `Tensor.to`, which a step would feel.
    return xs if all(x.dtype is dtype for x in xs) else tuple(x.to(dtype) for x in xs)


def time_major(x: Tensor) -> Tensor:
    """Return `[B, T, ...]` as `[T, B, ...]` in the type of states."""
    return x.transpose(0, 1).to(acc_dtype(x.dtype))


def without_gradient(x: Tensor, reset: Tensor, *states: Tensor) -> Tensor | None:
    """Return the steps that see a number that is not finite, bool `[T, B, 1]`; None for none.

    What they give is not finite as a rule; a backward direction that leaves them out keeps the
    sums over all steps, which gradients of weights are, finite.

    Args:
      x: inputs `[B, T, C]`.
      reset: bool `[B, T]`.
      states: before the window, `[B, H]` each.
    """
    bad, carried = nonfinite(x), nonfinite(*states)
    if asking_is_free(x) and not (bad.any() or carried.any()):
        return None
    reach = nonfinite_reach(bad.unsqueeze(2), carried.unsqueeze(1), reset)
    return reach.transpose(0, 1)
