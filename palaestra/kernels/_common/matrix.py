"""Operators whose memory is a matrix for each head, `[B, H, K, V]`."""

import torch
from torch import Tensor

from palaestra.kernels._common.runtime import acc_dtype
from palaestra.kernels._common.validate import check_tensor
from palaestra.kernels.resets import resolve_reset


def empty_state(
    batch: int, heads: int, key_width: int, value_width: int, *, like: Tensor | None = None
) -> Tensor:
    """Return the state before the first step, `[B, H, K, V]`; `like` gives type and device."""
    like = torch.empty(0) if like is None else like
    shape = (batch, heads, key_width, value_width)
    return torch.zeros(shape, dtype=acc_dtype(like.dtype), device=like.device)


def check_state(name: str, state: Tensor, q: Tensor, v: Tensor) -> None:
    """Check the state that goes with queries `[B, ..., H, K]` and values `[B, ..., H, V]`."""
    shape = (q.shape[0], q.shape[-2], q.shape[-1], v.shape[-1])
    check_tensor(name, state, shape, acc_dtype(q.dtype), q.device)


def window(
    q: Tensor, v: Tensor, reset: Tensor | None, cu_seqlens: Tensor | None, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return mask and initial state of a window `[B, T, H, ...]`, both given and checked.

    Raises:
      ValueError: no step, or a mask or state that does not fit.
    """
    B, T, H, K = q.shape
    if T == 0:
        raise ValueError("q: it has no steps; one at least is needed.")
    if state is None:
        state = empty_state(B, H, K, v.shape[-1], like=q)
    check_state("initial_state", state, q, v)
    return resolve_reset(reset, cu_seqlens, B, T, q.device), state
