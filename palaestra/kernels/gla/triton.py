# mypy: disable-error-code="import-untyped,import-not-found,no-untyped-def"
"""Gated linear attention as Triton kernels, one program per row, head and block of value channels.

A program goes through the chunks with the state on chip: forward in one launch, backward in two,
one through time for the queries and one against it for keys, values and decay. Sums over value
channels (dq, dk, dg) come as one part per block and are added afterwards.

Names: p_ pointer, o_ offsets, m_ mask. C is BK where the decay is per channel (GATE 2), else 1.
What real arguments give is cast: Triton itself passes them in float32, torch.compile in float64.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from palaestra.kernels._common.autograd import by_hand
from palaestra.kernels._common.runtime import ALL_REGISTERS, INTERPRET, guard

NONE, HEAD, CHANNEL = 0, 1, 2


@triton.jit
def _load(p, row, o_d, m_t, D, ACC: tl.constexpr) -> tl.tensor:
    """Return rows of `[.., D]`, [BT, BD]."""
    mask = m_t[:, None] & (o_d < D)[None, :]
    return tl.load(p + row[:, None] * D + o_d[None, :], mask=mask, other=0).to(ACC)


@triton.jit
def _store(p, row, o_d, m_t, D, x) -> None:
    mask = m_t[:, None] & (o_d < D)[None, :]
    tl.store(p + row[:, None] * D + o_d[None, :], x.to(p.dtype.element_ty), mask=mask)


@triton.jit
def _load_kv(
    p_k, p_v, row, o_k, o_v, m_t, K, V, bad_g, ACC: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Return keys and values, with zeros for non-finite tokens, and which those are, [BT]."""
    k = _load(p_k, row, o_k, m_t, K, ACC)
    v = _load(p_v, row, o_v, m_t, V, ACC)
    # x * 0 is NaN where x is not finite.
    bad = bad_g | (tl.sum(k * 0, 1) != 0) | (tl.sum(v * 0, 1) != 0)
    return tl.where(bad[:, None], 0.0, k), tl.where(bad[:, None], 0.0, v), bad


@triton.jit
def _load_q(p_q, row, o_k, m_t, K, scale, ACC: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """Return scaled queries, with zeros for non-finite ones, and which those are, [BT]."""
    q = (_load(p_q, row, o_k, m_t, K, ACC) * scale).to(ACC)
    bad = tl.sum(q * 0, 1) != 0
    return tl.where(bad[:, None], 0.0, q), bad


@triton.jit
def _sums(g, CUT: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """Return sums of g over the tokens, and where g is refused."""
    fine = g <= 0
    g = tl.maximum(tl.where(fine, g, 0.0), CUT)
    # Float64, since differences of these sums would lose digits in float32 after strong decay.
    return tl.cumsum(g.to(tl.float64), 0), (fine == 0).to(tl.int32)


@triton.jit
def _load_g(
    p_g, p_reset, b, h, o_t, m_t, o_k, T, H, K,
    ACC: tl.constexpr, CUT: tl.constexpr, GATE: tl.constexpr,
) -> tuple[tl.tensor, ...]:  # fmt: skip
    """Return sums of g [BT, C], resets and segments [BT], and tokens with a refused g [BT]."""
    at = b * T + o_t
    reset = tl.load(p_reset + at, mask=m_t, other=0).to(tl.int32)
    if GATE == 2:
        g = _load(p_g, at * H + h, o_k, m_t, K, ACC)
        G, bad = _sums(tl.where((reset > 0)[:, None], 0.0, g), CUT)
        bad = tl.max(bad, 1)
    else:
        # One axis until the sums are done: Triton 3.6 does not scan a second one of length 1.
        g = tl.zeros_like(o_t).to(ACC)
        if GATE == 1:
            g = tl.load(p_g + at * H + h, mask=m_t, other=0).to(ACC)
        G, bad = _sums(tl.where(reset > 0, 0.0, g), CUT)
        G = G[:, None]
    return G, reset, tl.cumsum(reset, 0), bad > 0


@triton.jit
def _ends(G, seg, o_i, BT: tl.constexpr, ACC: tl.constexpr) -> tuple[tl.tensor, ...]:
    """Return cin and cout [BT, C], dec [C, 1], and the number of the last segment."""
    seg_L = tl.max(seg, 0)
    G_L = tl.sum(tl.where((o_i == BT - 1)[:, None], G, 0.0), 0)
    inf = float("inf")
    cin = tl.exp(tl.where((seg == 0)[:, None], G, -inf).to(ACC))
    cout = tl.exp(tl.where((seg == seg_L)[:, None], G_L[None, :] - G, -inf).to(ACC))
    dec = tl.exp(tl.where(seg_L == 0, G_L, -inf).to(ACC))
    return cin, cout, dec[:, None], seg_L


@triton.jit
def _row(x, o_i, j) -> tl.tensor:
    """Return row j of `x`, [1, C]."""
    return tl.sum(tl.where((o_i == j)[:, None], x, 0.0), 0)[None, :]


@triton.jit
def _left(G, seg, o_i, j, ACC: tl.constexpr) -> tl.tensor:
    """Return what each token sees of token j, [BT, C]."""
    seg_j = tl.sum(tl.where(o_i == j, seg, 0), 0)
    seen = ((o_i >= j) & (seg == seg_j))[:, None]
    return tl.exp(tl.where(seen, G - _row(G, o_i, j), -float("inf")).to(ACC))


@triton.jit
def _matrix(G, seg, o_i, ACC: tl.constexpr) -> tl.tensor:
    """Return D [BT, BT] of one decay per head."""
    G = tl.sum(G, 1)
    seen = (o_i[:, None] >= o_i[None, :]) & (seg[:, None] == seg[None, :])
    return tl.exp(tl.where(seen, G[:, None] - G[None, :], -float("inf")).to(ACC))


@triton.jit
def _dot(x, y, ACC: tl.constexpr, DOT: tl.constexpr) -> tl.tensor:
    return tl.dot(x.to(DOT), y.to(DOT), input_precision="ieee", out_dtype=ACC)


@triton.jit
def _scores(
    q, k, G, seg, o_i, BT: tl.constexpr,
    ACC: tl.constexpr, DOT: tl.constexpr, GATE: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Return A_ij = sum_c q_ic k_jc exp(G_ic - G_jc) [BT, BT]."""
    if GATE == 2:
        A = tl.zeros([BT, BT], dtype=ACC)
        for j in range(BT):
            column = tl.sum(q * _row(k, o_i, j) * _left(G, seg, o_i, j, ACC), 1)
            A += tl.where((o_i == j)[None, :], column[:, None], 0.0)
    else:
        A = _dot(q, tl.trans(k), ACC, DOT) * _matrix(G, seg, o_i, ACC)
    return A


@triton.jit
def _dscores(
    do, v, q, k, G, seg, o_i, BT: tl.constexpr, BK: tl.constexpr,
    ACC: tl.constexpr, DOT: tl.constexpr, GATE: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:  # fmt: skip
    """Return what the scores of a chunk give dq and dk, [BT, BK] each."""
    dA = _dot(do, tl.trans(v), ACC, DOT)
    if GATE == 2:
        dq = tl.zeros([BT, BK], dtype=ACC)
        dk = tl.zeros([BT, BK], dtype=ACC)
        for j in range(BT):
            column = tl.sum(tl.where((o_i == j)[None, :], dA, 0.0), 1)[:, None]
            weight = column * _left(G, seg, o_i, j, ACC)  # (BT, BK)
            dq += weight * _row(k, o_i, j)
            dk += tl.where((o_i == j)[:, None], tl.sum(weight * q, 0)[None, :], 0.0)
    else:
        dA = dA * _matrix(G, seg, o_i, ACC)
        dq = _dot(dA, k, ACC, DOT)
        dk = _dot(tl.trans(dA), q, ACC, DOT)
    return dq, dk


@triton.jit(do_not_specialize=["T"])
def gla_fwd_kernel(
    p_q, p_k, p_v, p_g, p_reset, p_first, p_o, p_last, scale, T, H, K, V, NV,
    BT: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    ACC: tl.constexpr, DOT: tl.constexpr, CUT: tl.constexpr, GATE: tl.constexpr,
) -> None:  # fmt: skip
    """O = (cin Q) S + A V;   S' = dec S + (cout K)^T V."""
    pid = tl.program_id(0).to(tl.int64)
    bh, part = pid // NV, pid % NV
    b, h = bh // H, bh % H
    o_i, o_k, o_v = tl.arange(0, BT), tl.arange(0, BK), part * BV + tl.arange(0, BV)
    row_s = bh * K + o_k
    S = _load(p_first, row_s, o_v, o_k < K, V, ACC)  # [BK, BV]
    bad_S = tl.max((S * 0 != 0).to(tl.int32).reshape(BK * BV), 0)
    S = tl.where(bad_S > 0, 0.0, S)
    for begin in range(0, T, BT):
        o_t = begin + o_i
        m_t = o_t < T
        row = (b * T + o_t) * H + h
        G, _, seg, bad_g = _load_g(p_g, p_reset, b, h, o_t, m_t, o_k, T, H, K, ACC, CUT, GATE)
        q, bad_q = _load_q(p_q, row, o_k, m_t, K, scale, ACC)
        k, v, bad = _load_kv(p_k, p_v, row, o_k, o_v, m_t, K, V, bad_g, ACC)
        cin, cout, dec, _ = _ends(G, seg, o_i, BT, ACC)
        A = _scores(q, k, G, seg, o_i, BT, ACC, DOT, GATE)
        o = _dot(q * cin, S, ACC, DOT) + _dot(A, v, ACC, DOT)
        S = dec * S + _dot(tl.trans(k * cout), v, ACC, DOT)
        # A step is reached by itself, by an earlier one of its segment, or by the carried state.
        seen = (o_i[:, None] >= o_i[None, :]) & (seg[:, None] == seg[None, :])
        hit = tl.max((seen & bad[None, :]).to(tl.int32), 1)
        hit = tl.maximum(hit, tl.where(seg == 0, bad_S, 0))
        bad_S = tl.max(tl.where(o_i == BT - 1, hit, 0), 0)
        o = tl.where(((hit > 0) | bad_q)[:, None], float("nan"), o)
        _store(p_o, row, o_v, m_t, V, o)
    S = tl.where(bad_S > 0, float("nan"), S)
    _store(p_last, row_s, o_v, o_k < K, V, S)


@triton.jit(do_not_specialize=["T"])
def gla_bwd_kernel_q(
    p_q, p_k, p_v, p_g, p_reset, p_first, p_do, p_dq, scale, T, H, K, V, NV,
    BT: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    ACC: tl.constexpr, DOT: tl.constexpr, CUT: tl.constexpr, GATE: tl.constexpr,
) -> None:  # fmt: skip
    """Queries: dQ = dA K + cin (dO S^T), with the states once more."""
    pid = tl.program_id(0).to(tl.int64)
    bh, part = pid // NV, pid % NV
    b, h = bh // H, bh % H
    rows = tl.num_programs(0).to(tl.int64) // NV // H * T * H
    o_i, o_k, o_v = tl.arange(0, BT), tl.arange(0, BK), part * BV + tl.arange(0, BV)
    S = _load(p_first, bh * K + o_k, o_v, o_k < K, V, ACC)  # [BK, BV]
    S = tl.where(tl.max((S * 0 != 0).to(tl.int32).reshape(BK * BV), 0) > 0, 0.0, S)
    for begin in range(0, T, BT):
        o_t = begin + o_i
        m_t = o_t < T
        row = (b * T + o_t) * H + h
        G, _, seg, bad_g = _load_g(p_g, p_reset, b, h, o_t, m_t, o_k, T, H, K, ACC, CUT, GATE)
        q, _ = _load_q(p_q, row, o_k, m_t, K, scale, ACC)
        k, v, _ = _load_kv(p_k, p_v, row, o_k, o_v, m_t, K, V, bad_g, ACC)
        do = _load(p_do, row, o_v, m_t, V, ACC)
        cin, cout, dec, _ = _ends(G, seg, o_i, BT, ACC)
        dq, _ = _dscores(do, v, q, k, G, seg, o_i, BT, BK, ACC, DOT, GATE)
        dq += cin * _dot(do, tl.trans(S), ACC, DOT)
        S = dec * S + _dot(tl.trans(k * cout), v, ACC, DOT)
        _store(p_dq, part * rows + row, o_k, m_t, K, dq * scale)


@triton.jit(do_not_specialize=["T"])
def gla_bwd_kernel_kv(
    p_q, p_k, p_v, p_g, p_reset, p_last, p_do, p_dlast, p_dq, p_dk, p_dv, p_dg, p_dfirst,
    scale, T, H, K, V, NV,
    BT: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, BC: tl.constexpr,
    ACC: tl.constexpr, DOT: tl.constexpr, CUT: tl.constexpr, GATE: tl.constexpr,
) -> None:  # fmt: skip
    """Keys, values and decay: dK = dA^T Q + cout (V dS^T);   dV = A^T dO + (cout K) dS.

    `after` is what the last segment of a chunk adds to dg from later chunks: sums of q dq - k dk.
    """
    pid = tl.program_id(0).to(tl.int64)
    bh, part = pid // NV, pid % NV
    b, h = bh // H, bh % H
    rows = tl.num_programs(0).to(tl.int64) // NV // H * T * H
    o_i, o_k, o_v = tl.arange(0, BT), tl.arange(0, BK), part * BV + tl.arange(0, BV)
    row_s = bh * K + o_k
    dS = _load(p_dlast, row_s, o_v, o_k < K, V, ACC)  # [BK, BV]
    last = _load(p_last, row_s, o_v, o_k < K, V, ACC)
    after = tl.sum(tl.where(last == last, last, 0.0) * dS, 1)  # (BK)
    if GATE != 2:
        after = tl.sum(after, 0)[None]  # (1)
    for end in range(0, T, BT):
        o_t = (T - 1) // BT * BT - end + o_i
        m_t = o_t < T
        row = (b * T + o_t) * H + h
        G, reset, seg, bad_g = _load_g(p_g, p_reset, b, h, o_t, m_t, o_k, T, H, K, ACC, CUT, GATE)
        q, _ = _load_q(p_q, row, o_k, m_t, K, scale, ACC)
        k, v, _ = _load_kv(p_k, p_v, row, o_k, o_v, m_t, K, V, bad_g, ACC)
        do = _load(p_do, row, o_v, m_t, V, ACC)
        cin, cout, dec, seg_L = _ends(G, seg, o_i, BT, ACC)
        A = _scores(q, k, G, seg, o_i, BT, ACC, DOT, GATE)
        _, dk = _dscores(do, v, q, k, G, seg, o_i, BT, BK, ACC, DOT, GATE)
        dk += cout * _dot(v, tl.trans(dS), ACC, DOT)
        dv = _dot(tl.trans(A), do, ACC, DOT) + _dot(k * cout, dS, ACC, DOT)
        dS = dec * dS + _dot(tl.trans(q * cin), do, ACC, DOT)
        _store(p_dk, part * rows + row, o_k, m_t, K, dk)
        _store(p_dv, row, o_v, m_t, V, dv)
        if GATE != 0:
            dq = (_load(p_dq, part * rows + row, o_k, m_t, K, ACC) / scale).to(ACC)
            x = q * dq - k * dk
            later = (o_i[:, None] <= o_i[None, :]) & (seg[:, None] == seg[None, :])
            if GATE == 2:
                sums = tl.dot(later.to(ACC), x, input_precision="ieee", out_dtype=ACC)
            else:
                sums = tl.sum(tl.where(later, tl.sum(x, 1)[None, :], 0.0), 1)[:, None]
            dg = sums + tl.where((seg == seg_L)[:, None], after[None, :], 0.0)
            dg = tl.where((reset > 0)[:, None], 0.0, dg)
            o_c = tl.arange(0, BC)
            _store(p_dg, part * rows + row, o_c, m_t, K if GATE == 2 else 1, dg)
            lead = tl.sum(tl.where(((o_i == 0) & (seg == 0))[:, None], sums, 0.0), 0)
            after = lead + tl.where(seg_L == 0, after, 0.0)
    _store(p_dfirst, row_s, o_v, o_k < K, V, dS)


def chunk(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    reset: Tensor,
    state: Tensor,
    scale: float,
    chunk_size: int,
) -> tuple[Tensor, Tensor]:
    """Read a window; arguments as `chunk_gla`, all but g given."""
    o, last = _Chunk.apply(q, k, v, g, reset, state, scale, chunk_size)
    return o, last


class _Chunk(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        g: Tensor | None,
        reset: Tensor,
        state: Tensor,
        scale: float,
        chunk_size: int,
    ) -> tuple[Tensor, Tensor]:
        q, k, v, state = (x.contiguous() for x in (q, k, v, state))
        g = None if g is None else g.contiguous()
        reset = reset.contiguous().view(torch.uint8)
        o, last = torch.empty_like(v), torch.empty_like(state)
        options = _options(q, v, g, chunk_size)
        grid, sizes = _grid(q, v, options["BV"])
        with guard(q.device):
            gla_fwd_kernel[grid](q, k, v, g, reset, state, o, last, scale, *sizes, **options)
        ctx.save_for_backward(q, k, v, g, reset, state, last)
        ctx.scale, ctx.chunk_size = scale, chunk_size
        return o, last

    @staticmethod
    @by_hand
    def backward(ctx: Any, do: Tensor, dlast: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, g, reset, state, last = ctx.saved_tensors
        do, dlast = do.contiguous(), dlast.contiguous()
        options = _options(q, v, g, ctx.chunk_size)
        grid, sizes = _grid(q, v, options["BV"])
        parts, dtype = (sizes[-1],), state.dtype
        dq, dk = (torch.empty(parts + q.shape, dtype=dtype, device=q.device) for _ in range(2))
        dv, dfirst = torch.empty_like(v), torch.empty_like(state)
        dg = None if g is None else torch.empty(parts + g.shape, dtype=dtype, device=q.device)
        window, rest = (q, k, v, g, reset), (ctx.scale, *sizes)
        with guard(q.device):
            gla_bwd_kernel_q[grid](*window, state, do, dq, *rest, **options)
            BC = options["BK"] if options["GATE"] == CHANNEL else 1
            gla_bwd_kernel_kv[grid](
                *window, last, do, dlast, dq, dk, dv, dg, dfirst, *rest, BC=BC, **options
            )
        dg = None if dg is None or g is None else dg.sum(0).to(g.dtype)
        return dq.sum(0).to(q.dtype), dk.sum(0).to(k.dtype), dv, dg, None, dfirst, None, None


def _options(q: Tensor, v: Tensor, g: Tensor | None, chunk_size: int) -> dict[str, Any]:
    double = q.dtype == torch.float64
    gate = NONE if g is None else HEAD if g.ndim == 3 else CHANNEL
    acc = tl.float64 if double else tl.float32
    # The interpreter multiplies the bit patterns of bfloat16.
    half = {torch.float16: tl.float16, torch.bfloat16: tl.float32 if INTERPRET else tl.bfloat16}
    # Full precision takes twice the space, and so half the block.
    widest = 64 if q.dtype in half else 32
    longest = 16 if gate == CHANNEL else min(chunk_size, widest)
    BT = min(longest, max(16, triton.next_power_of_2(q.shape[1])))
    BK = max(16, triton.next_power_of_2(q.shape[-1]))
    return {
        "BT": BT,
        "BK": BK,
        "BV": min(widest, max(16, triton.next_power_of_2(v.shape[-1]))),
        "ACC": acc,
        "DOT": half.get(q.dtype, acc),
        # exp of less is 0 in that type.
        "CUT": -750.0 if double else -104.0,
        "GATE": gate,
        # As many as keep the numbers of a block in registers; full precision needs more.
        "num_warps": 8 if (2048 if q.dtype in half else 1024) <= BT * BK else 4,
        **(ALL_REGISTERS if q.dtype == torch.float32 else {}),
    }


def _grid(q: Tensor, v: Tensor, block: int) -> tuple[tuple[int], tuple[int, ...]]:
    """Return the launch grid and T, H, K, V and the number of blocks of value channels."""
    (B, T, H, K), V = q.shape, v.shape[-1]
    parts = triton.cdiv(V, block)
    return (B * H * parts,), (T, H, K, V, parts)
