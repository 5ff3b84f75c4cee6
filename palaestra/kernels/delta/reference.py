"""The delta rule in plain PyTorch, one step after another: the specification, and acting."""

import torch
from torch import Tensor

from palaestra.kernels._common.matrix import carried


def recurrent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None,
    state: Tensor,
    reset: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Read a window step by step; arguments as `recurrent_delta`, all given but `g`."""
    rows = []
    for t in range(q.shape[1]):
        g_t = None if g is None else g[:, t]
        o, state = step(q[:, t], k[:, t], v[:, t], beta[:, t], g_t, state, reset[:, t], scale)
        rows.append(o)
    return torch.stack(rows, 1), state


def step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None,
    state: Tensor,
    reset: Tensor,
    scale: float,
    inplace: bool = False,
) -> tuple[Tensor, Tensor]:
    """Read one step; arguments as `step_delta`, all given but `g`."""
    dtype, compute, out = q.dtype, state.dtype, state if inplace else None
    q, k, v, beta = (x.to(compute) for x in (q, k, v, beta))
    (S_bar,) = carried(None if g is None else g.to(compute), reset, state)  # (B, H, K, V)
    e = v - _read(S_bar, k)
    u = beta.unsqueeze(-1) * e
    S = torch.addcmul(S_bar, k.unsqueeze(-1), u.unsqueeze(-2), out=out)
    return (scale * _read(S, q)).to(dtype), S


def _read(S: Tensor, x: Tensor) -> Tensor:
    """Return `S^T x`, `[B, H, V]`."""
    return (x.unsqueeze(-2) @ S).squeeze(-2)
