# mypy: disable-error-code="no-untyped-def, import-untyped, import-not-found"
"""The delta rule as Triton kernels: a program holds the state of one row, head and block of values.

A program walks through its window chunk by chunk; README.md has the formulas, and names are its.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from palaestra.kernels._common.autograd import by_hand
from palaestra.kernels._common.runtime import ALL_REGISTERS, INTERPRET, guard

_HALF = (torch.float16, torch.bfloat16)
_DOT = {torch.float64: tl.float64, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}
if INTERPRET:  # it multiplies the bit patterns of bfloat16
    del _DOT[torch.bfloat16]


class DeltaTriton(torch.autograd.Function):
    """`apply(q, k, v, beta, g, state, reset, scale, L)`: as `chunk_delta`, all given but `g`."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        beta: Tensor,
        g: Tensor | None,
        state: Tensor,
        reset: Tensor,
        scale: float,
        L: int,
    ) -> tuple[Tensor, Tensor]:
        """Return `o [B, T, H, V]` and the final state `[B, H, K, V]`."""
        q, k, v, beta, state = (x.contiguous() for x in (q, k, v, beta, state))
        g, reset = None if g is None else g.contiguous(), reset.to(torch.int8).contiguous()
        (B, T, H, K), V = q.shape, v.shape[-1]
        o, S_T = torch.empty_like(v), torch.empty_like(state)
        S = state.new_empty(B, H, triton.cdiv(T, L), K, V)
        options = _options(q, v, g, L)
        with guard(q.device):
            delta_fwd_kernel[(B * H * options["NV"],)](
                q, k, v, beta, g, reset, state, o, S, S_T, scale, T, H, **options
            )
        ctx.save_for_backward(q, k, v, beta, g, reset, S, S_T)
        ctx.scale, ctx.L = scale, L
        return o, S_T

    @staticmethod
    @by_hand
    def backward(ctx: Any, do: Tensor, dS_T: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of all arguments."""
        q, k, v, beta, g, reset, S, S_T = ctx.saved_tensors
        B, T, H, _ = q.shape
        options = _options(q, v, g, ctx.L)
        NV = options["NV"]
        # What is a sum over values is written for each block of them.
        dq, dk, dbeta = (_parts(x, NV, S.dtype) for x in (q, k, beta))
        dg = _parts(beta if g is None else g, NV, S.dtype)
        dv, dS_0 = torch.empty_like(v), torch.empty_like(S_T)
        grid = (B * H * NV,)
        with guard(q.device):
            delta_bwd_kernel[grid](
                q, k, v, beta, g, reset, S, S_T, do.contiguous(), dS_T.contiguous(),
                dq, dk, dv, dbeta, dg, dS_0, ctx.scale, T, H, B * T * H, **options
            )  # fmt: skip
        return (
            _total(dq, q.dtype),
            _total(dk, k.dtype),
            dv,
            _total(dbeta, beta.dtype),
            None if g is None else _total(dg, g.dtype),
            dS_0,
            None,
            None,
            None,
        )


def _options(q: Tensor, v: Tensor, g: Tensor | None, L: int) -> dict[str, Any]:
    K, V = q.shape[-1], v.shape[-1]
    BK, BV = (max(16, triton.next_power_of_2(n)) for n in (K, V))
    BV = min(BV, 64)
    return {
        "K": K,
        "V": V,
        "BK": BK,
        "BV": BV,
        "NV": triton.cdiv(V, BV),
        "L": L,
        "LOG": L.bit_length() - 1,
        "GATED": g is not None,
        "ACC": tl.float64 if q.dtype == torch.float64 else tl.float32,
        "DOT": _DOT.get(q.dtype, tl.float32),
        # exp of less is 0 in ACC.
        "CUT": -750.0 if q.dtype == torch.float64 else -104.0,
        # As many as keep the numbers of a block in registers; full precision needs more.
        "num_warps": 8 if (4096 if q.dtype in _HALF else 1024) <= BK * BV else 4,
        **(ALL_REGISTERS if q.dtype == torch.float32 else {}),
    }


def _parts(x: Tensor, parts: int, dtype: torch.dtype) -> Tensor:
    return x.new_empty(parts, *x.shape, dtype=x.dtype if parts == 1 else dtype)


def _total(parts: Tensor, dtype: torch.dtype) -> Tensor:
    return parts[0] if len(parts) == 1 else parts.sum(0).to(dtype)


@triton.jit
def delta_fwd_kernel(
    p_q,
    p_k,
    p_v,
    p_beta,
    p_g,
    p_reset,
    p_s0,
    p_o,
    p_s,
    p_sT,
    scale,
    T,
    H,
    K: tl.constexpr,
    V: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    NV: tl.constexpr,
    L: tl.constexpr,
    LOG: tl.constexpr,
    GATED: tl.constexpr,
    ACC: tl.constexpr,
    DOT: tl.constexpr,
    CUT: tl.constexpr,
) -> None:
    """Write outputs, the state before each chunk and the final one; NaN where not finite."""
    i = tl.program_id(0).to(tl.int64)
    i_bh = i // NV
    i_b, i_h = i_bh // H, i_bh % H
    o_k = tl.arange(0, BK)
    o_v = (i % NV) * BV + tl.arange(0, BV)
    m_v = o_v < V
    o_s = o_k[:, None] * V + o_v[None, :]  # [BK, BV]
    m_s = (o_k < K)[:, None] & m_v[None, :]
    b_S, bad_S = _finite(tl.load(p_s0 + i_bh * K * V + o_s, mask=m_s, other=0).to(ACC))
    N = tl.cdiv(T, L)
    for n in range(0, N):
        p_sn = p_s + (i_bh * N + n) * K * V + o_s
        tl.store(p_sn, tl.where(bad_S != 0, float("nan"), b_S), mask=m_s)
        o_t = n * L + tl.arange(0, L)
        m_t = o_t < T
        o_row = (i_b * T + o_t) * H + i_h
        b_q, b_k, b_v, b_beta, g, r, cut, bad, bad_q = _tokens(
            p_q, p_k, p_v, p_beta, p_g, p_reset + i_b * T + o_t,
            o_row, m_t, o_k, o_v, scale, K, V, GATED, ACC, CUT,
        )  # fmt: skip
        b_D, cin, cout, dec = _decay(g, cut, L, ACC)
        same, seg = _segments(r, L)
        b_U = _corrections(b_k, b_v, b_beta, b_S, b_D, cin, L, LOG, ACC, DOT)[3]
        b_P = _dot(b_q, tl.trans(b_k), ACC, DOT) * b_D  # [L, L]
        b_o = cin[:, None] * _dot(b_q, b_S, ACC, DOT) + _dot(b_P, b_U, ACC, DOT)  # [L, BV]
        seen = _reached(bad, bad_S, same, seg)
        b_o = tl.where(((seen != 0) | bad_q)[:, None], float("nan"), b_o)
        tl.store(p_o + o_row[:, None] * V + o_v[None, :], b_o, mask=m_t[:, None] & m_v[None, :])
        b_S = dec * b_S + _dot(tl.trans(cout[:, None] * b_k), b_U, ACC, DOT)
        bad_S = _last(seen, L)
    tl.store(p_sT + i_bh * K * V + o_s, tl.where(bad_S != 0, float("nan"), b_S), mask=m_s)


@triton.jit
def delta_bwd_kernel(
    p_q,
    p_k,
    p_v,
    p_beta,
    p_g,
    p_reset,
    p_s,
    p_sT,
    p_do,
    p_dsT,
    p_dq,
    p_dk,
    p_dv,
    p_dbeta,
    p_dg,
    p_ds0,
    scale,
    T,
    H,
    rows,
    K: tl.constexpr,
    V: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    NV: tl.constexpr,
    L: tl.constexpr,
    LOG: tl.constexpr,
    GATED: tl.constexpr,
    ACC: tl.constexpr,
    DOT: tl.constexpr,
    CUT: tl.constexpr,
) -> None:
    """Write the gradients, chunks from the last to the first."""
    i = tl.program_id(0).to(tl.int64)
    i_bh, i_v = i // NV, i % NV
    i_b, i_h = i_bh // H, i_bh % H
    o_k = tl.arange(0, BK)
    o_v = i_v * BV + tl.arange(0, BV)
    m_k, m_v = o_k < K, o_v < V
    o_s = o_k[:, None] * V + o_v[None, :]  # [BK, BV]
    m_s = m_k[:, None] & m_v[None, :]
    b_S, bad_S = _finite(tl.load(p_sT + i_bh * K * V + o_s, mask=m_s, other=0).to(ACC))
    b_dS = tl.load(p_dsT + i_bh * K * V + o_s, mask=m_s, other=0).to(ACC)
    b_dS = tl.where(bad_S != 0, 0.0, b_dS)
    later = tl.sum(tl.sum(b_dS * b_S, 1), 0)
    N = tl.cdiv(T, L)
    for back in range(0, N):
        n = N - 1 - back
        p_sn = p_s + (i_bh * N + n) * K * V + o_s
        b_S, bad_S = _finite(tl.load(p_sn, mask=m_s, other=0).to(ACC))
        o_t = n * L + tl.arange(0, L)
        m_t = o_t < T
        o_row = (i_b * T + o_t) * H + i_h
        m_tk, m_tv = m_t[:, None] & m_k[None, :], m_t[:, None] & m_v[None, :]
        b_q, b_k, b_v, b_beta, g, r, cut, bad, bad_q = _tokens(
            p_q, p_k, p_v, p_beta, p_g, p_reset + i_b * T + o_t,
            o_row, m_t, o_k, o_v, scale, K, V, GATED, ACC, CUT,
        )  # fmt: skip
        b_D, cin, cout, dec = _decay(g, cut, L, ACC)
        same, seg = _segments(r, L)
        seen = _reached(bad, bad_S, same, seg)
        same, seg = _segments(cut, L)
        m_do = (m_t & (seen == 0) & (bad_q == 0))[:, None] & m_v[None, :]
        b_do = tl.load(p_do + o_row[:, None] * V + o_v[None, :], mask=m_do, other=0).to(ACC)
        b_dq, b_dk, b_dv, b_dbeta, b_dS = _adjoint(
            b_q, b_k, b_v, b_beta, b_S, b_do, b_dS, b_D, cin, cout, dec, L, LOG, ACC, DOT
        )

        o_part = i_v * rows + o_row
        tl.store(p_dq + o_part[:, None] * K + o_k[None, :], scale * b_dq, mask=m_tk)
        tl.store(p_dk + o_part[:, None] * K + o_k[None, :], b_dk, mask=m_tk)
        tl.store(p_dv + o_row[:, None] * V + o_v[None, :], b_dv, mask=m_tv)
        tl.store(p_dbeta + o_part, b_dbeta, mask=m_t)
        if GATED:
            x = tl.sum(b_q * b_dq, 1) - tl.sum(b_v * b_dv, 1)  # [L]
            dg = tl.sum(tl.where(same, x[:, None], 0.0), 0)
            dg += tl.where(seg == _last(seg, L), later, 0.0)
            tl.store(p_dg + o_part, tl.where(cut != 0, 0.0, dg), mask=m_t)
            later = tl.where(_last(seg, L) == 0, later, 0.0)
            later += tl.sum(tl.where(seg == 0, x, 0.0), 0)
    tl.store(p_ds0 + i_bh * K * V + o_s, b_dS, mask=m_s)


@triton.jit
def _adjoint(
    b_q,
    b_k,
    b_v,
    b_beta,
    b_S,
    b_do,
    b_dS,
    b_D,
    cin,
    cout,
    dec,
    L: tl.constexpr,
    LOG: tl.constexpr,
    ACC: tl.constexpr,
    DOT: tl.constexpr,
) -> tuple[tl.tensor, ...]:
    """Return dq (scaled), dk [L, BK], dv [L, BV], dbeta [L] and dS [BK, BV] before the chunk."""
    b_C, b_X, b_E, b_U = _corrections(b_k, b_v, b_beta, b_S, b_D, cin, L, LOG, ACC, DOT)
    b_P = _dot(b_q, tl.trans(b_k), ACC, DOT) * b_D  # [L, L]
    b_dU = _dot(tl.trans(b_P), b_do, ACC, DOT)
    b_dU += cout[:, None] * _dot(b_k, b_dS, ACC, DOT)
    b_dR = _dot(tl.trans(b_X), b_dU, ACC, DOT)  # [L, BV]
    b_dv = b_beta[:, None] * b_dR
    b_dP = _dot(b_do, tl.trans(b_U), ACC, DOT) * b_D  # [L, L]
    b_M = tl.where(_below(L), _dot(b_dv, tl.trans(b_U), ACC, DOT) * b_D, 0.0)
    b_dq = _dot(b_dP, b_k, ACC, DOT)  # [L, BK]
    b_dq += cin[:, None] * _dot(b_do, tl.trans(b_S), ACC, DOT)
    b_dk = _dot(tl.trans(b_dP), b_q, ACC, DOT)
    b_dk -= _dot(b_M + tl.trans(b_M), b_k, ACC, DOT)
    b_dk += cout[:, None] * _dot(b_U, tl.trans(b_dS), ACC, DOT)
    b_dk -= cin[:, None] * _dot(b_dv, tl.trans(b_S), ACC, DOT)
    b_dbeta = tl.sum(b_dR * (b_E - _dot(b_C, b_U, ACC, DOT)), 1)  # [L]
    b_dS = dec * b_dS + _dot(tl.trans(cin[:, None] * b_q), b_do, ACC, DOT)
    b_dS -= _dot(tl.trans(cin[:, None] * b_k), b_dv, ACC, DOT)
    return b_dq, b_dk, b_dv, b_dbeta, b_dS


@triton.jit
def _tokens(
    p_q,
    p_k,
    p_v,
    p_beta,
    p_g,
    p_reset,
    o_row,
    m_t,
    o_k,
    o_v,
    scale,
    K: tl.constexpr,
    V: tl.constexpr,
    GATED: tl.constexpr,
    ACC: tl.constexpr,
    CUT: tl.constexpr,
) -> tuple[tl.tensor, ...]:
    """Return the tokens of a chunk, zeros where they are not finite, and where that is.

    `r` marks resets, `cut` these and the tokens whose decay leaves nothing of the state before.
    """
    m_tk, m_tv = m_t[:, None] & (o_k < K)[None, :], m_t[:, None] & (o_v < V)[None, :]
    b_q = tl.load(p_q + o_row[:, None] * K + o_k[None, :], mask=m_tk, other=0).to(ACC)
    b_k = tl.load(p_k + o_row[:, None] * K + o_k[None, :], mask=m_tk, other=0).to(ACC)
    b_v = tl.load(p_v + o_row[:, None] * V + o_v[None, :], mask=m_tv, other=0).to(ACC)
    b_beta = tl.load(p_beta + o_row, mask=m_t, other=0).to(ACC)
    r = tl.load(p_reset, mask=m_t, other=0).to(tl.int32)
    bad_q = tl.sum(b_q * 0, 1) != 0
    bad = (tl.sum(b_k * 0, 1) + tl.sum(b_v * 0, 1) + b_beta * 0) != 0
    g, cut = tl.zeros_like(b_beta), r
    if GATED:
        g = tl.load(p_g + o_row, mask=m_t, other=0).to(ACC)
        g = tl.where(r != 0, 0.0, g)
        bad = bad | (g != g) | (g > 0)
        # What forgets all acts as a reset does: it would leave no digits in a difference of sums.
        cut = tl.where(g < CUT, 1, r)
        g = tl.where(bad | (cut != 0), 0.0, g)
    # torch.compile passes real arguments in float64.
    b_q = tl.where(bad_q[:, None], 0.0, (scale * b_q).to(ACC))
    b_k = tl.where(bad[:, None], 0.0, b_k)
    b_v = tl.where(bad[:, None], 0.0, b_v)
    b_beta = tl.where(bad, 0.0, b_beta)
    return b_q, b_k, b_v, b_beta, g, r, cut, bad, bad_q


@triton.jit
def _decay(g, cut, L: tl.constexpr, ACC: tl.constexpr) -> tuple[tl.tensor, ...]:
    """Return D [L, L], cin [L], cout [L] and dec of a chunk."""
    # In float64: differences of sums lose digits after strong decay.
    G = tl.cumsum(g.to(tl.float64), 0)
    G_L, seg_L = tl.sum(g.to(tl.float64), 0), tl.sum(cut, 0)
    same, seg = _segments(cut, L)
    exponent = tl.where(same, (G[:, None] - G[None, :]).to(ACC), 0.0)
    b_D = tl.where(same, tl.exp(exponent), 0.0)
    cin = tl.where(seg == 0, tl.exp(G.to(ACC)), 0.0)
    cout = tl.where(seg == seg_L, tl.exp((G_L - G).to(ACC)), 0.0)
    dec = tl.where(seg_L == 0, tl.exp(G_L.to(ACC)), 0.0)
    return b_D, cin, cout, dec


@triton.jit
def _segments(r, L: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """Return which earlier tokens are in the segment of each, [L, L], and its number, [L]."""
    o_i = tl.arange(0, L)
    seg = tl.cumsum(r, 0)
    return (seg[:, None] == seg[None, :]) & (o_i[:, None] >= o_i[None, :]), seg


@triton.jit
def _corrections(
    b_k,
    b_v,
    b_beta,
    b_S,
    b_D,
    cin,
    L: tl.constexpr,
    LOG: tl.constexpr,
    ACC: tl.constexpr,
    DOT: tl.constexpr,
) -> tuple[tl.tensor, ...]:
    """Return C, X [L, L] and E, U [L, BV]."""
    b_C = tl.where(_below(L), _dot(b_k, tl.trans(b_k), ACC, DOT) * b_D, 0.0)
    b_X = _inverse(b_beta[:, None] * b_C, L, LOG, ACC)
    b_E = b_v - cin[:, None] * _dot(b_k, b_S, ACC, DOT)
    b_U = _dot(b_X, b_beta[:, None] * b_E, ACC, DOT)
    return b_C, b_X, b_E, b_U


@triton.jit
def _inverse(b_A, L: tl.constexpr, LOG: tl.constexpr, ACC: tl.constexpr) -> tl.tensor:
    """Return (I + A)^-1; two blocks on the diagonal make one twice as long, until one is left."""
    o_i = tl.arange(0, L)[:, None]
    o_j = tl.arange(0, L)[None, :]
    b_X = tl.where(o_i == o_j, 1.0, tl.where(o_i >> 1 == o_j >> 1, -b_A, 0.0))
    for s in range(1, LOG):
        between = (o_i >> (s + 1) == o_j >> (s + 1)) & (o_i >> s != o_j >> s)
        b_XA = _dot(b_X, tl.where(between, b_A, 0.0), ACC, ACC)
        b_X -= _dot(b_XA, b_X, ACC, ACC)
    return b_X


@triton.jit
def _dot(a, b, ACC: tl.constexpr, DOT: tl.constexpr) -> tl.tensor:
    """Return the product a b; the tensor cores see operands of type DOT."""
    return tl.dot(a.to(DOT), b.to(DOT), input_precision="ieee", out_dtype=ACC)


@triton.jit
def _below(L: tl.constexpr) -> tl.tensor:
    """Return the mask below the diagonal, [L, L]."""
    return tl.arange(0, L)[:, None] > tl.arange(0, L)[None, :]


@triton.jit
def _finite(b_S) -> tuple[tl.tensor, tl.tensor]:
    """Return the state, zeros where it is not finite, and 1 if it was not, else 0."""
    bad = b_S * 0 != 0
    return tl.where(bad, 0.0, b_S), tl.max(tl.max(bad.to(tl.int32), 1), 0)


@triton.jit
def _reached(bad, carried, same, seg) -> tl.tensor:
    """Return 1 for tokens that see a non-finite one or such a carried state, else 0, [L]."""
    tokens = tl.max(tl.where(same, bad[None, :].to(tl.int32), 0), 1)
    return tl.maximum(tokens, tl.where(seg == 0, carried, 0))


@triton.jit
def _last(x, L: tl.constexpr) -> tl.tensor:
    """Return the last entry of integers x [L]."""
    return tl.sum(tl.where(tl.arange(0, L) == L - 1, x, 0), 0)
