"""Gated linear attention token by token: the specification."""

import torch
from torch import Tensor

from palaestra.kernels._common.matrix import carried


def step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    reset: Tensor,
    state: Tensor,
    scale: float,
    inplace: bool = False,
) -> tuple[Tensor, Tensor]:
    """Read one step; arguments as `step_gla`, g `[B, H]`, `[B, H, K]` or None.

    S = where(r_t, 0, a_t S) + k_t v_t^T;   o_t = scale S^T q_t
    """
    out = state if inplace else None
    q, k, v = (x.to(state.dtype) for x in (q, k, v))
    (state,) = carried(None if g is None else g.to(state.dtype), reset, state)
    state = torch.addcmul(state, k.unsqueeze(-1), v.unsqueeze(-2), out=out)
    return scale * (q.unsqueeze(-2) @ state).squeeze(-2), state


def loop(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, reset: Tensor, state: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Read a window step by step; arguments as `recurrent_gla`, all but g given."""
    rows = []
    for t in range(q.shape[1]):
        g_t = None if g is None else g[:, t]
        o_t, state = step(q[:, t], k[:, t], v[:, t], g_t, reset[:, t], state, scale)
        rows.append(o_t)
    return torch.stack(rows, 1).to(q.dtype), state
