"""Operators whose memory is a matrix for each head, `[B, H, K, V]`."""

import torch
from torch import Tensor

from palaestra.kernels._common.runtime import acc_dtype, is_none
from palaestra.kernels._common.validate import check_tensor
from palaestra.kernels.resets import resolve_reset


def empty_state(
    batch: int, heads: int, key_width: int, value_width: int, *, like: Tensor | None = None
) -> Tensor:
    """Return the state before the first step, `[B, H, K, V]`; `like` gives type and device."""
    like = torch.empty(0) if like is None else like
    shape = (batch, heads, key_width, value_width)
    return torch.zeros(shape, dtype=acc_dtype(like.dtype), device=like.device)


def carried(g: Tensor | None, reset: Tensor, *states: Tensor) -> list[Tensor]:
    """Return what a step has of each state before it: where(r_t, 0, exp(g_t) S_{t-1}).

    Args:
      g: log decay `[B, H]` or `[B, H, K]`, or None; not read at resets, NaN above 0.
      reset: bool `[B]`.
      states: `[B, H, K, V]` each.
    """
    found = list(states)
    if not is_none(reset):
        # A product with 0 would keep the NaN of an episode that has ended.
        found = [S.masked_fill(reset[:, None, None, None], 0) for S in found]
        g = None if g is None else g.masked_fill(reset.view(-1, *(1,) * (g.ndim - 1)), 0)
    if g is not None:
        a = g.masked_fill(g > 0, torch.nan).exp()
        a = a.view(*a.shape, *(1,) * (4 - a.ndim))
        found = [S * a for S in found]
    return found


def check_state(name: str, state: Tensor, q: Tensor, v: Tensor) -> None:
    """Check the state that goes with queries `[B, ..., H, K]` and values `[B, ..., H, V]`."""
    shape = (q.shape[0], q.shape[-2], q.shape[-1], v.shape[-1])
    check_tensor(name, state, shape, acc_dtype(q.dtype), q.device)


def window(
    q: Tensor, v: Tensor, reset: Tensor | None, cu_seqlens: Tensor | None, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return mask and initial state of a window `[B, T, H, ...]`, both given and checked.

    Raises:
      ValueError: a mask or state that does not fit.
    """
    B, T, H, K = q.shape
    if state is None:
        state = empty_state(B, H, K, v.shape[-1], like=q)
    check_state("initial_state", state, q, v)
    return resolve_reset(reset, cu_seqlens, B, T, q.device), state
