# mypy: disable-error-code="import-untyped, import-not-found, no-untyped-def"
"""One step of the delta rule in one launch, without gradients."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from palaestra.kernels._common.runtime import guard
from palaestra.kernels._common.triton_matrix import constants, factor, grid, scaled, target


@triton.jit
def delta_step_kernel(
    q, k, v, beta, g, reset, state, o, new, scale,
    GATED: tl.constexpr, H: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    BK: tl.constexpr, BV: tl.constexpr, ACC: tl.constexpr,
) -> None:  # fmt: skip
    """Write the new state `[B, H, K, V]`, which may be the given one, and what is read, `o`."""
    n_v = tl.cdiv(V, BV)
    i_bh, i_v = tl.program_id(0).to(tl.int64) // n_v, tl.program_id(0) % n_v
    o_k, o_v = tl.arange(0, BK), i_v * BV + tl.arange(0, BV)
    m_k, m_v = o_k < K, o_v < V
    p_S = (i_bh * K + o_k)[:, None] * V + o_v[None, :]
    m_S = m_k[:, None] & m_v[None, :]
    b_q = tl.load(q + i_bh * K + o_k, m_k, other=0.0).to(ACC)
    b_k = tl.load(k + i_bh * K + o_k, m_k, other=0.0).to(ACC)
    b_v = tl.load(v + i_bh * V + o_v, m_v, other=0.0).to(ACC)
    b_S = tl.load(state + p_S, m_S, other=0.0).to(ACC)  # [BK, BV]
    if GATED:
        b_S *= factor(tl.load(g + i_bh).to(ACC))
    # Not a product: 0 times a NaN of the old episode would be NaN.
    b_S = tl.where(tl.load(reset + i_bh // H) != 0, 0.0, b_S)
    b_e = b_v - tl.sum(b_k[:, None] * b_S, 0)
    b_u = tl.load(beta + i_bh).to(ACC) * b_e
    b_S += b_k[:, None] * b_u[None, :]
    b_o = (scale * tl.sum(b_q[:, None] * b_S, 0)).to(o.dtype.element_ty)
    tl.debug_barrier()  # all threads have read the state, which the new one may overwrite
    tl.store(new + p_S, b_S, m_S)
    tl.store(o + i_bh * V + o_v, b_o, m_v)


def step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None,
    state: Tensor,
    reset: Tensor,
    scale: float,
    inplace: bool,
) -> tuple[Tensor, Tensor]:
    """Read one step; arguments as `step_delta`, all but g given."""
    new = target(state, inplace)
    q, scale = scaled(q, scale)
    q, k, v, beta, state = (x.detach().contiguous() for x in (q, k, v, beta, state))
    g = None if g is None else g.detach().contiguous()
    o, options = torch.empty_like(v), constants(state)
    with guard(q.device):
        delta_step_kernel[grid(state, options["BV"])](
            q, k, v, beta, g, reset.contiguous().view(torch.uint8), state, o, new, scale,
            GATED=g is not None, **options,
        )  # fmt: skip
    return o, new
