# mypy: disable-error-code="import-untyped, import-not-found, no-untyped-def"
"""One step of RAT in one launch, without gradients."""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from palaestra.kernels._common.runtime import guard
from palaestra.kernels.rat.state import RatState
from palaestra.kernels.rat.triton_scan import load_halves, rotation, store_halves, turn


@triton.jit
def _rounded(x_1, x_2, like, ACC: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """Return both halves as numbers of the type that `like` points to."""
    return x_1.to(like.dtype.element_ty).to(ACC), x_2.to(like.dtype.element_ty).to(ACC)


@triton.jit
def _load_slots(
    p_x, o_j, m_j, o_d, D: tl.constexpr, HALF: tl.constexpr, ACC: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """Load slots of a ring `[C, D]` at `p_x` as halves, [BN, BD]."""
    p_j = o_j[:, None] * D + o_d[None, :]
    m_1, m_2 = m_j[:, None] & (o_d < HALF)[None, :], m_j[:, None] & (o_d < D - HALF)[None, :]
    x_1 = tl.load(p_x + p_j, mask=m_1, other=0.0).to(ACC)
    x_2 = tl.load(p_x + HALF + p_j, mask=m_2, other=0.0).to(ACC)
    return x_1, x_2


@triton.jit(do_not_specialize=["C"])
def rat_step_kernel(
    p_q, p_k, p_v, p_g, p_reset, p_pos, p_k_run, p_v_run, p_k_end, p_v_end,
    p_o, p_k_new, p_v_new, p_pos_new, C,
    H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, HALF: tl.constexpr, BD: tl.constexpr,
    BN: tl.constexpr, L: tl.constexpr, SCALE: tl.constexpr, LOG_BASE: tl.constexpr,
    ACC: tl.constexpr,
) -> None:  # fmt: skip
    """Write outputs, the new running pair, which may lie where the given one does, and the rings.

    Grid `[B * H]`. The first head of a row writes its position.
    """
    pid = tl.program_id(0).to(tl.int64)
    b, h = pid // H, pid % H
    o_d, o_n = tl.arange(0, BD), tl.arange(0, BN)
    ended = tl.load(p_reset + b) != 0
    pos = tl.where(ended, 0, tl.load(p_pos + b))
    c, inside = pos // L, pos % L
    g_1, g_2 = load_halves(p_g + pid * D, o_d, D, HALF, ACC)
    x_1, x_2 = load_halves(p_k + (b * G + h % G) * D, o_d, D, HALF, ACC)
    y_1, y_2 = load_halves(p_k_run + pid * D, o_d, D, HALF, ACC)
    k_1 = (1 - g_1) * x_1 + tl.where(inside == 0, 0.0, g_1 * y_1)
    k_2 = (1 - g_2) * x_2 + tl.where(inside == 0, 0.0, g_2 * y_2)
    x_1, x_2 = load_halves(p_v + pid * D, o_d, D, HALF, ACC)
    y_1, y_2 = load_halves(p_v_run + pid * D, o_d, D, HALF, ACC)
    v_1 = (1 - g_1) * x_1 + tl.where(inside == 0, 0.0, g_1 * y_1)
    v_2 = (1 - g_2) * x_2 + tl.where(inside == 0, 0.0, g_2 * y_2)

    angle = c.to(ACC) * rotation(o_d, HALF, LOG_BASE, ACC)
    q_1, q_2 = load_halves(p_q + (b * G + h % G) * D, o_d, D, HALF, ACC)
    # The open chunk turns as the query does: both stay as they are.
    x_1, x_2 = _rounded(k_1, k_2, p_q, ACC)
    b_m = tl.sum(q_1 * x_1 + q_2 * x_2, 0) * SCALE
    b_l = tl.sum(tl.where(o_d == 0, 1.0, 0.0).to(ACC), 0)
    o_1, o_2 = _rounded(v_1, v_2, p_q, ACC)
    q_1, q_2 = turn(q_1, q_2, angle)
    q_1, q_2 = _rounded(q_1, q_2, p_q, ACC)
    seen = tl.minimum(c, C)
    for j in range(0, seen, BN):
        o_j, m_j = j + o_n, j + o_n < seen
        b_k1, b_k2 = _load_slots(p_k_end + pid * C * D, o_j, m_j, o_d, D, HALF, ACC)
        b_v1, b_v2 = _load_slots(p_v_end + pid * C * D, o_j, m_j, o_d, D, HALF, ACC)
        b_s = tl.sum(b_k1 * q_1[None, :] + b_k2 * q_2[None, :], 1) * SCALE  # [BN]
        b_s = tl.where(m_j, b_s, -float("inf"))
        b_m_new = tl.maximum(b_m, tl.max(b_s, 0))
        fade, b_p = tl.exp(b_m - b_m_new), tl.exp(b_s - b_m_new)
        b_l = b_l * fade + tl.sum(b_p, 0)
        o_1 = o_1 * fade + tl.sum(b_p[:, None] * b_v1, 0)
        o_2 = o_2 * fade + tl.sum(b_p[:, None] * b_v2, 0)
        b_m = b_m_new
    store_halves(p_o + pid * D, o_1 / b_l, o_2 / b_l, o_d, D, HALF)

    tl.debug_barrier()  # all threads have read what is overwritten now
    store_halves(p_k_new + pid * D, k_1, k_2, o_d, D, HALF)
    store_halves(p_v_new + pid * D, v_1, v_2, o_d, D, HALF)
    tl.store(p_pos_new + b, pos + 1, mask=h == 0)
    # Zeros, since a stale NaN times a weight of 0 would be NaN.
    o_e = tl.arange(0, 2 * BD)
    for j in range(0, tl.where(ended, C, 0), BN):
        p_j = (pid * C + j + o_n)[:, None] * D + o_e[None, :]
        m_j = (j + o_n < C)[:, None] & (o_e < D)[None, :]
        zero = tl.zeros([BN, 2 * BD], p_k_end.dtype.element_ty)
        tl.store(p_k_end + p_j, zero, mask=m_j)
        tl.store(p_v_end + p_j, zero, mask=m_j)
    if inside == L - 1:
        tl.debug_barrier()  # the slot is one of those that may have been emptied
        at = (pid * C + c % C) * D
        k_1, k_2 = turn(k_1, k_2, angle)
        store_halves(p_k_end + at, k_1, k_2, o_d, D, HALF)
        store_halves(p_v_end + at, v_1, v_2, o_d, D, HALF)


def step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    reset: Tensor,
    state: RatState,
    L: int,
    scale: float,
    base: float | None,
    inplace: bool,
) -> tuple[Tensor, RatState]:
    """Read one step; arguments as `step_rat`, all given."""
    (B, H, D), C = v.shape, state.capacity
    q, k, v, g = (x.detach().contiguous() for x in (q, k, v, g))
    k_run, v_run = (x.detach().contiguous() for x in (state.k_run, state.v_run))
    # Heads of a row may start at different times: none of them overwrites the position.
    o, pos, new = torch.empty_like(v), torch.empty_like(state.pos), state
    if not inplace:
        ring = torch.stack([x.detach().contiguous() for x in (state.k_end, state.v_end)])
        new = RatState(ring[0], ring[1], torch.empty_like(k_run), torch.empty_like(v_run), pos)
    elif not all(x.is_contiguous() for x in (new.k_end, new.v_end, new.k_run, new.v_run)):
        raise ValueError("state: it has to be contiguous to be written in place.")
    HALF = (D + 1) // 2
    BD, BN = triton.next_power_of_2(HALF), min(32, triton.next_power_of_2(C))
    with guard(q.device):
        rat_step_kernel[(B * H,)](
            q, k, v, g, reset.contiguous().view(torch.uint8), state.pos.contiguous(),
            k_run, v_run, new.k_end, new.v_end, o, new.k_run, new.v_run, pos, C,
            H=H, G=q.shape[1], D=D, HALF=HALF, BD=BD, BN=BN, L=L, SCALE=scale,
            LOG_BASE=None if base is None else math.log2(base),
            ACC=tl.float64 if q.dtype == torch.float64 else tl.float32,
            num_warps=1 if BD * BN <= 256 else 4,
        )  # fmt: skip
    if inplace:
        state.pos.copy_(pos)
    return o, new
