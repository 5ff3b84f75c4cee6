# mypy: disable-error-code="import-untyped, import-not-found, no-untyped-def"
"""Attention in Triton: one pass over the visible keys with a running softmax.

A program owns a block of queries (or, for dK and dV, of places of the context) of one row and head
and walks the interval that the block sees. `lo_t` never falls, so a block's interval is read off
its ends, and what resets and the window hide is never loaded beyond whole blocks.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from palaestra.kernels._common.autograd import by_hand
from palaestra.kernels._common.runtime import (
    ALL_REGISTERS,
    INTERPRET,
    acc_dtype,
    configs,
    guard,
)
from palaestra.kernels.attention.context import Context
from palaestra.kernels.attention.state import AttentionState

_TYPES = {
    torch.float64: tl.float64,
    torch.float32: tl.float32,
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
}

_CONFIGS = [
    triton.Config({"BM": 32, "BN": 32}, num_warps=4, num_stages=2, **ALL_REGISTERS),
    triton.Config({"BM": 64, "BN": 32}, num_warps=4, num_stages=2, **ALL_REGISTERS),
    triton.Config({"BM": 64, "BN": 64}, num_warps=4, num_stages=2, **ALL_REGISTERS),
    triton.Config({"BM": 128, "BN": 64}, num_warps=8, num_stages=2, **ALL_REGISTERS),
]


@triton.jit
def _finite(x) -> tl.tensor:
    """Return x with 0 instead of NaN and infinity: a weight of 0 does not stop them in a dot."""
    return tl.where(tl.abs(x) < float("inf"), x, 0.0)


@triton.autotune(configs(_CONFIGS), key=["D", "DOT", "PRECISION"])
@triton.jit(do_not_specialize=["T", "P"])
def attention_fwd_kernel(
    q, k, v, lo, o, lse, scale, T, P,
    H: tl.constexpr, D: tl.constexpr, BD: tl.constexpr,
    ACC: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
) -> None:  # fmt: skip
    """Write `o [B, T, H, D]` and the logarithm of the softmax's sum, `lse [B, T, H]`."""
    n_t = tl.cdiv(T, BM)
    i_bh, i_t = tl.program_id(0).to(tl.int64) // n_t, tl.program_id(0) % n_t
    b, h = i_bh // H, i_bh % H
    o_t, o_d = i_t * BM + tl.arange(0, BM), tl.arange(0, BD)
    m_t, m_d = o_t < T, o_d < D
    p_t = ((b * T + o_t) * H + h)[:, None] * D + o_d[None, :]
    b_q = tl.load(q + p_t, m_t[:, None] & m_d[None, :], other=0.0).to(ACC)  # [BM, BD]
    b_q = (b_q * scale).to(ACC)  # torch.compile passes real arguments in float64
    b_lo = tl.load(lo + b * T + o_t, m_t, other=T + P)  # [BM]
    b_m = tl.full([BM], -float("inf"), ACC)
    b_l = tl.zeros([BM], ACC)
    b_o = tl.zeros([BM, BD], ACC)
    first = tl.load(lo + b * T + i_t * BM)
    for j in range(first, P + tl.minimum(i_t * BM + BM, T), BN):
        o_j = j + tl.arange(0, BN)
        m_j = o_j < P + T
        p_j = ((b * (P + T) + o_j) * H + h)[:, None] * D + o_d[None, :]
        b_k = tl.load(k + p_j, m_j[:, None] & m_d[None, :], other=0.0).to(ACC)  # [BN, BD]
        b_v = tl.load(v + p_j, m_j[:, None] & m_d[None, :], other=0.0).to(ACC)
        seen = (o_j[None, :] >= b_lo[:, None]) & (o_j[None, :] <= P + o_t[:, None])
        # A value that is not finite shows in the scores, which the mask hides from other episodes.
        mark = tl.sum((b_v - b_v) + (b_k - b_k), 1)  # [BN], 0 or NaN
        b_s = tl.dot(b_q.to(DOT), tl.trans(b_k).to(DOT), out_dtype=ACC, input_precision=PRECISION)
        b_s = tl.where(seen, b_s + mark[None, :], -float("inf"))  # [BM, BN]
        b_m_new = tl.maximum(b_m, tl.max(b_s, 1))
        # A query sees nothing in the blocks before its interval: no inf - inf there.
        b_m_safe = tl.where(b_m_new == -float("inf"), 0.0, b_m_new)
        fade = tl.exp(b_m - b_m_safe)
        b_p = tl.exp(b_s - b_m_safe[:, None])
        b_l = b_l * fade + tl.sum(b_p, 1)
        b_o = b_o * fade[:, None] + tl.dot(
            b_p.to(DOT), _finite(b_v).to(DOT), out_dtype=ACC, input_precision=PRECISION
        )
        b_m = b_m_new
    b_l = tl.where(m_t, b_l, 1.0)
    b_o = b_o / b_l[:, None]
    tl.store(o + p_t, b_o.to(o.dtype.element_ty), m_t[:, None] & m_d[None, :])
    tl.store(lse + (b * T + o_t) * H + h, b_m + tl.log(b_l), m_t)


@triton.autotune(configs(_CONFIGS), key=["D", "DOT", "PRECISION"])
@triton.jit(do_not_specialize=["T", "P"])
def attention_bwd_kernel_dq(
    q, k, v, lo, o, lse, do, dq, delta, scale, T, P,
    H: tl.constexpr, D: tl.constexpr, BD: tl.constexpr,
    ACC: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
) -> None:  # fmt: skip
    """Write `dq [B, T, H, D]` and `delta [B, T, H]` = rowsum(dO * O)."""
    n_t = tl.cdiv(T, BM)
    i_bh, i_t = tl.program_id(0).to(tl.int64) // n_t, tl.program_id(0) % n_t
    b, h = i_bh // H, i_bh % H
    o_t, o_d = i_t * BM + tl.arange(0, BM), tl.arange(0, BD)
    m_t, m_d = o_t < T, o_d < D
    p_t = ((b * T + o_t) * H + h)[:, None] * D + o_d[None, :]
    m_td = m_t[:, None] & m_d[None, :]
    b_lse = tl.load(lse + (b * T + o_t) * H + h, m_t, other=0.0)
    live = b_lse == b_lse  # a non-finite output hands back no gradient
    b_q = (_finite(tl.load(q + p_t, m_td, other=0.0).to(ACC)) * scale).to(ACC)  # [BM, BD]
    b_do = tl.load(do + p_t, m_td & live[:, None], other=0.0).to(ACC)
    b_out = tl.load(o + p_t, m_td & live[:, None], other=0.0).to(ACC)
    b_delta = tl.sum(b_do * b_out, 1)  # [BM]
    tl.store(delta + (b * T + o_t) * H + h, b_delta, m_t)
    b_lo = tl.load(lo + b * T + o_t, m_t & live, other=T + P)
    b_dq = tl.zeros([BM, BD], ACC)
    first = tl.load(lo + b * T + i_t * BM)
    for j in range(first, P + tl.minimum(i_t * BM + BM, T), BN):
        o_j = j + tl.arange(0, BN)
        p_j = ((b * (P + T) + o_j) * H + h)[:, None] * D + o_d[None, :]
        m_jd = (o_j < P + T)[:, None] & m_d[None, :]
        b_k = _finite(tl.load(k + p_j, m_jd, other=0.0).to(ACC))  # [BN, BD]
        b_v = _finite(tl.load(v + p_j, m_jd, other=0.0).to(ACC))
        seen = (o_j[None, :] >= b_lo[:, None]) & (o_j[None, :] <= P + o_t[:, None])
        b_s = tl.dot(b_q.to(DOT), tl.trans(b_k).to(DOT), out_dtype=ACC, input_precision=PRECISION)
        b_p = tl.exp(tl.where(seen, b_s - b_lse[:, None], -float("inf")))  # [BM, BN]
        b_dp = tl.dot(b_do.to(DOT), tl.trans(b_v).to(DOT), out_dtype=ACC, input_precision=PRECISION)
        b_ds = b_p * (b_dp - b_delta[:, None])
        b_dq += tl.dot(b_ds.to(DOT), b_k.to(DOT), out_dtype=ACC, input_precision=PRECISION)
    tl.store(dq + p_t, (b_dq * scale).to(dq.dtype.element_ty), m_td)


@triton.autotune(configs(_CONFIGS), key=["D", "DOT", "PRECISION"])
@triton.jit(do_not_specialize=["T", "P"])
def attention_bwd_kernel_dkv(
    q, k, v, lo, hi, lse, do, dk, dv, delta, scale, T, P,
    H: tl.constexpr, D: tl.constexpr, BD: tl.constexpr,
    ACC: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
) -> None:  # fmt: skip
    """Write `dk, dv [B, P + T, H, D]`; place j is seen by the queries `j - P .. hi_j - 1`."""
    n_j = tl.cdiv(P + T, BN)
    i_bh, i_j = tl.program_id(0).to(tl.int64) // n_j, tl.program_id(0) % n_j
    b, h = i_bh // H, i_bh % H
    o_j, o_d = i_j * BN + tl.arange(0, BN), tl.arange(0, BD)
    m_d = o_d < D
    p_j = ((b * (P + T) + o_j) * H + h)[:, None] * D + o_d[None, :]
    m_jd = (o_j < P + T)[:, None] & m_d[None, :]
    b_k = _finite(tl.load(k + p_j, m_jd, other=0.0).to(ACC))  # [BN, BD]
    b_v = _finite(tl.load(v + p_j, m_jd, other=0.0).to(ACC))
    b_dk = tl.zeros([BN, BD], ACC)
    b_dv = tl.zeros([BN, BD], ACC)
    last = tl.load(hi + b * (P + T) + tl.minimum(i_j * BN + BN, P + T) - 1)
    for t in range(tl.maximum(i_j * BN - P, 0), last, BM):
        o_t = t + tl.arange(0, BM)
        m_t = o_t < T
        p_t = ((b * T + o_t) * H + h)[:, None] * D + o_d[None, :]
        b_lse = tl.load(lse + (b * T + o_t) * H + h, m_t, other=0.0)
        live = m_t & (b_lse == b_lse)
        m_td = live[:, None] & m_d[None, :]
        b_q = (_finite(tl.load(q + p_t, m_td, other=0.0).to(ACC)) * scale).to(ACC)  # [BM, BD]
        b_do = tl.load(do + p_t, m_td, other=0.0).to(ACC)
        b_delta = tl.load(delta + (b * T + o_t) * H + h, m_t, other=0.0)
        b_lo = tl.load(lo + b * T + o_t, live, other=T + P)
        seen = (o_j[:, None] >= b_lo[None, :]) & (o_j[:, None] <= P + o_t[None, :])
        b_s = tl.dot(b_k.to(DOT), tl.trans(b_q).to(DOT), out_dtype=ACC, input_precision=PRECISION)
        b_p = tl.exp(tl.where(seen, b_s - b_lse[None, :], -float("inf")))  # [BN, BM]
        b_dv += tl.dot(b_p.to(DOT), b_do.to(DOT), out_dtype=ACC, input_precision=PRECISION)
        b_dp = tl.dot(b_v.to(DOT), tl.trans(b_do).to(DOT), out_dtype=ACC, input_precision=PRECISION)
        b_ds = b_p * (b_dp - b_delta[None, :])
        b_dk += tl.dot(b_ds.to(DOT), b_q.to(DOT), out_dtype=ACC, input_precision=PRECISION)
    tl.store(dk + p_j, b_dk.to(dk.dtype.element_ty), m_jd)
    tl.store(dv + p_j, b_dv.to(dv.dtype.element_ty), m_jd)


@triton.jit
def attention_step_kernel(
    q, k, v, k_ring, v_ring, pos, reset, o, scale, W,
    H: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, ACC: tl.constexpr, BN: tl.constexpr,
) -> None:  # fmt: skip
    """Write the step's key and value into the rings `[B, H, W, D]` and what it reads, `o`."""
    i_bh = tl.program_id(0).to(tl.int64)
    p, ended = tl.load(pos + i_bh // H), tl.load(reset + i_bh // H)
    slot = p % W
    o_d = tl.arange(0, BD)
    m_d = o_d < D
    b_q = (tl.load(q + i_bh * D + o_d, m_d, other=0.0).to(ACC) * scale).to(ACC)  # [BD]
    b_k1 = tl.load(k + i_bh * D + o_d, m_d, other=0.0)
    b_v1 = tl.load(v + i_bh * D + o_d, m_d, other=0.0)
    tl.store(k_ring + (i_bh * W + slot) * D + o_d, b_k1, m_d)
    tl.store(v_ring + (i_bh * W + slot) * D + o_d, b_v1, m_d)
    # The step sees itself: the running softmax starts there, and its slot is left out below.
    b_v1 = b_v1.to(ACC)
    b_m = tl.sum(b_q * b_k1.to(ACC))
    b_l = tl.sum(tl.where(o_d == 0, 1.0, 0.0).to(ACC))
    b_o = b_v1
    for j in range(0, tl.minimum(p + 1, W), BN):
        o_j = j + tl.arange(0, BN)
        m_j = (o_j < tl.minimum(p + 1, W)) & (o_j != slot)
        p_j = (i_bh * W + o_j)[:, None] * D + o_d[None, :]
        b_k = tl.load(k_ring + p_j, m_j[:, None] & m_d[None, :], other=0.0).to(ACC)  # [BN, BD]
        b_v = tl.load(v_ring + p_j, m_j[:, None] & m_d[None, :], other=0.0).to(ACC)
        b_s = tl.where(m_j, tl.sum(b_k * b_q[None, :], 1), -float("inf"))  # [BN]
        b_m_new = tl.maximum(b_m, tl.max(b_s, 0))
        fade = tl.exp(b_m - b_m_new)
        b_p = tl.exp(b_s - b_m_new)
        b_l = b_l * fade + tl.sum(b_p, 0)
        b_o = b_o * fade + tl.sum(b_p[:, None] * b_v, 0)
        b_m = b_m_new
    tl.store(o + i_bh * D + o_d, (b_o / b_l).to(o.dtype.element_ty), m_d)
    for j in range(0, tl.where(ended != 0, W, 0), BN):
        o_j = j + tl.arange(0, BN)
        p_j = (i_bh * W + o_j)[:, None] * D + o_d[None, :]
        m_jd = ((o_j < W) & (o_j != slot))[:, None] & m_d[None, :]
        zero = tl.zeros([BN, BD], ACC)
        tl.store(k_ring + p_j, zero.to(k_ring.dtype.element_ty), m_jd)
        tl.store(v_ring + p_j, zero.to(v_ring.dtype.element_ty), m_jd)


class _Attention(torch.autograd.Function):
    """`q [B, T, H, D]` over the context `k, v [B, P + T, H, D]`, from `lo [B, T]` on."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, lo: Tensor, scale: float) -> Tensor:
        """Return what the queries read, `[B, T, H, D]`."""
        B, T, H, _ = q.shape
        q, k, v, lo = (x.contiguous() for x in (q, k, v, lo))
        o = torch.empty_like(q)
        lse = q.new_empty(B, T, H, dtype=acc_dtype(q.dtype))
        with guard(q.device):
            attention_fwd_kernel[lambda meta: (B * H * triton.cdiv(T, meta["BM"]),)](
                q, k, v, lo, o, lse, scale, T, k.shape[1] - T, **_constants(q)
            )
        ctx.save_for_backward(q, k, v, lo, o, lse)
        ctx.scale = scale
        return o

    @staticmethod
    @by_hand
    def backward(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of all arguments."""
        q, k, v, lo, o, lse = ctx.saved_tensors
        (B, T, H, _), J = q.shape, k.shape[1]
        do = do.contiguous()
        dq, dk, dv, delta = (torch.empty_like(x) for x in (q, k, v, lse))
        hi = torch.searchsorted(lo, torch.arange(J, device=lo.device).repeat(B, 1), right=True)
        rest = (ctx.scale, T, J - T)
        with guard(q.device):
            attention_bwd_kernel_dq[lambda meta: (B * H * triton.cdiv(T, meta["BM"]),)](
                q, k, v, lo, o, lse, do, dq, delta, *rest, **_constants(q)
            )
            attention_bwd_kernel_dkv[lambda meta: (B * H * triton.cdiv(J, meta["BN"]),)](
                q, k, v, lo, hi, lse, do, dk, dv, delta, *rest, **_constants(q)
            )
        return dq, dk, dv, None, None


def chunk(q: Tensor, context: Context, scale: float) -> Tensor:
    """Return what queries `[B, T, H, D]` read from the context."""
    if q.dtype == torch.float64:
        # Triton takes real arguments in float32.
        q, scale = q * scale, 1.0
    return _Attention.apply(q, context.k, context.v, context.lo, scale)


def step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    reset: Tensor,
    state: AttentionState,
    scale: float,
    inplace: bool,
) -> tuple[Tensor, AttentionState]:
    """Read one step without gradients; arguments as `step_attention`, all given."""
    if q.dtype == torch.float64:
        q, scale = q * scale, 1.0
    (B, H, D), W = q.shape, state.window
    q, k, v = (x.detach().contiguous() for x in (q, k, v))
    p = state.pos.masked_fill(reset, 0)
    keys, values = (state.k, state.v) if inplace else (state.k.clone(), state.v.clone())
    if not (keys.is_contiguous() and values.is_contiguous()):
        raise ValueError("state: its keys and values have to be contiguous.")
    o = torch.empty_like(q)
    BD = max(16, triton.next_power_of_2(D))
    with guard(q.device):
        attention_step_kernel[(B * H,)](
            q, k, v, keys, values, p, reset.to(torch.uint8), o, scale, W,
            H, D, BD, _TYPES[acc_dtype(q.dtype)], BN=32,
        )  # fmt: skip
    if not inplace:
        return o, AttentionState(keys, values, p + 1)
    state.pos.copy_(p + 1)
    return o, state


def _constants(q: Tensor) -> dict[str, Any]:
    """Return the kernels' constants: widths, and in which types sums and products are made."""
    H, D = q.shape[2:]
    acc = acc_dtype(q.dtype)
    # The interpreter multiplies the bits of bfloat16 numbers.
    dot = acc if INTERPRET and q.dtype == torch.bfloat16 else q.dtype
    return {
        "H": H,
        "D": D,
        "BD": max(16, triton.next_power_of_2(D)),
        "ACC": _TYPES[acc],
        "DOT": _TYPES[dot],
        # Of what torch says about its precision, the compiler understands this alone.
        "PRECISION": "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee",
    }
