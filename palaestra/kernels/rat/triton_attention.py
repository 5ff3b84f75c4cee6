# mypy: disable-error-code="import-untyped, import-not-found, no-untyped-def"
"""The attention of RAT on the GPU: a block of steps over carried slots and finished chunks.

Heads are held as halves, as in `triton_scan`. Numbers that are not finite leave the products, since
a weight of 0 times NaN is NaN, and mark the outputs that see them.
"""

import triton
import triton.language as tl

from palaestra.kernels.rat.triton_scan import rotation, turn


@triton.jit
def load_rows(
    p_x, o_r, m_r, stride, o_d, D: tl.constexpr, HALF: tl.constexpr, ACC: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """Load rows of D numbers as halves, each `[rows, BD]`."""
    p_x = p_x + o_r[:, None] * stride + o_d[None, :]
    m_1 = m_r[:, None] & (o_d < HALF)[None, :]
    m_2 = m_r[:, None] & (o_d < D - HALF)[None, :]
    x_1 = tl.load(p_x, mask=m_1, other=0.0).to(ACC)
    x_2 = tl.load(p_x + HALF, mask=m_2, other=0.0).to(ACC)
    return x_1, x_2


@triton.jit
def store_rows(p_x, x_1, x_2, o_r, m_r, stride, o_d, D: tl.constexpr, HALF: tl.constexpr) -> None:
    """Store rows of D numbers."""
    p_x = p_x + o_r[:, None] * stride + o_d[None, :]
    tl.store(p_x, x_1, mask=m_r[:, None] & (o_d < HALF)[None, :])
    tl.store(p_x + HALF, x_2, mask=m_r[:, None] & (o_d < D - HALF)[None, :])


@triton.jit
def finite_rows(x_1, x_2) -> tl.tensor:
    """Return which rows are finite throughout, `[rows]`."""
    bad = (tl.abs(x_1) < float("inf")) & (tl.abs(x_2) < float("inf"))
    return tl.min(bad.to(tl.int32), 1) > 0


@triton.jit
def keep_rows(sound, x_1, x_2) -> tuple[tl.tensor, tl.tensor]:
    """Return zeros for the other rows."""
    return tl.where(sound[:, None], x_1, 0.0), tl.where(sound[:, None], x_2, 0.0)


@triton.jit
def round_rows(x_1, x_2, DTYPE: tl.constexpr, ACC: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """Round to the inputs' type, where the step form does."""
    return x_1.to(DTYPE).to(ACC), x_2.to(DTYPE).to(ACC)


@triton.jit
def product(a_1, a_2, b_1, b_2, DOT: tl.constexpr, ACC: tl.constexpr) -> tl.tensor:
    """Return `a b^T` of rows in halves."""
    x = tl.dot(a_1.to(DOT), tl.trans(b_1).to(DOT), out_dtype=ACC, input_precision="ieee")
    return x + tl.dot(a_2.to(DOT), tl.trans(b_2).to(DOT), out_dtype=ACC, input_precision="ieee")


@triton.jit
def weighted(P, x_1, x_2, DOT: tl.constexpr, ACC: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """Return `P x` of rows in halves."""
    P = P.to(DOT)
    y_1 = tl.dot(P, x_1.to(DOT), out_dtype=ACC, input_precision="ieee")
    y_2 = tl.dot(P, x_2.to(DOT), out_dtype=ACC, input_precision="ieee")
    return y_1, y_2


@triton.jit
def load_queries(
    p_q,
    b,
    h,
    o_t,
    m_t,
    o_d,
    T,
    G: tl.constexpr,
    D: tl.constexpr,
    HALF: tl.constexpr,
    ACC: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Return the queries of a head, finite ones alone, and which they are."""
    q_1, q_2 = load_rows(p_q + (b * T * G + h % G) * D, o_t, m_t, G * D, o_d, D, HALF, ACC)
    sound = finite_rows(q_1, q_2)
    q_1, q_2 = keep_rows(sound, q_1, q_2)
    return q_1, q_2, sound


@triton.jit
def load_places(p_pos, p_seg, b, o_t, m_t, T, L: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """Return chunk and segment of each step."""
    c = tl.load(p_pos + b * T + o_t, mask=m_t, other=0) // L
    return c, tl.load(p_seg + b * T + o_t, mask=m_t, other=0)


@triton.jit
def load_keys(
    p_keys,
    p_values,
    p_key_chunk,
    p_key_seg,
    b,
    pid,
    o_m,
    o_d,
    M,
    D: tl.constexpr,
    HALF: tl.constexpr,
    ACC: tl.constexpr,
) -> tuple[tl.tensor, ...]:
    """Return keys and values, finite ones alone, which they are, their chunk and segment."""
    m_m = o_m < M
    c = tl.load(p_key_chunk + b * M + o_m, mask=m_m, other=0)
    seg = tl.load(p_key_seg + b * M + o_m, mask=m_m, other=-1)
    k_1, k_2 = load_rows(p_keys + pid * M * D, o_m, seg >= 0, D, o_d, D, HALF, ACC)
    v_1, v_2 = load_rows(p_values + pid * M * D, o_m, seg >= 0, D, o_d, D, HALF, ACC)
    sound = finite_rows(k_1, k_2) & finite_rows(v_1, v_2)
    k_1, k_2 = keep_rows(sound, k_1, k_2)
    v_1, v_2 = keep_rows(sound, v_1, v_2)
    return k_1, k_2, v_1, v_2, sound, c, seg


@triton.jit
def visible(c, seg, c_key, seg_key, capacity) -> tl.tensor:
    """Return which keys each step sees, `[steps, keys]`."""
    lag = c[:, None] - c_key[None, :]
    return (seg[:, None] == seg_key[None, :]) & (lag > 0) & (lag <= capacity)


@triton.jit
def load_own(
    p_k_run,
    p_v_run,
    b,
    h,
    o_t,
    m_t,
    o_d,
    T,
    H: tl.constexpr,
    D: tl.constexpr,
    HALF: tl.constexpr,
    DTYPE: tl.constexpr,
    ACC: tl.constexpr,
) -> tuple[tl.tensor, ...]:
    """Return key and value of the open chunk at each step, finite ones alone, and which."""
    at = (b * T * H + h) * D
    k_1, k_2 = load_rows(p_k_run + at, o_t, m_t, H * D, o_d, D, HALF, ACC)
    v_1, v_2 = load_rows(p_v_run + at, o_t, m_t, H * D, o_d, D, HALF, ACC)
    k_1, k_2 = round_rows(k_1, k_2, DTYPE, ACC)
    v_1, v_2 = round_rows(v_1, v_2, DTYPE, ACC)
    sound = finite_rows(k_1, k_2) & finite_rows(v_1, v_2)
    k_1, k_2 = keep_rows(sound, k_1, k_2)
    v_1, v_2 = keep_rows(sound, v_1, v_2)
    return k_1, k_2, v_1, v_2, sound


@triton.jit(do_not_specialize=["T", "M", "capacity"])
def rat_attention_fwd_kernel(
    p_q, p_k_run, p_v_run, p_keys, p_values, p_pos, p_seg, p_key_chunk, p_key_seg, p_o, p_lse,
    T, M, capacity,
    SCALE: tl.constexpr, H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, HALF: tl.constexpr,
    BD: tl.constexpr, L: tl.constexpr, LOG_BASE: tl.constexpr, BT: tl.constexpr, BM: tl.constexpr,
    DOT: tl.constexpr, ACC: tl.constexpr,
) -> None:  # fmt: skip
    """Outputs and log-sums of a block of steps. Grid `[B * H * ceil(T / BT)]`."""
    NT = tl.cdiv(T, BT)
    pid = tl.program_id(0).to(tl.int64) // NT
    b, h = pid // H, pid % H
    DTYPE: tl.constexpr = p_q.dtype.element_ty
    o_d = tl.arange(0, BD)
    freq = rotation(o_d, HALF, LOG_BASE, ACC)
    o_t = tl.program_id(0) % NT * BT + tl.arange(0, BT)
    m_t = o_t < T
    q_1, q_2, sound_q = load_queries(p_q, b, h, o_t, m_t, o_d, T, G, D, HALF, ACC)
    c, seg = load_places(p_pos, p_seg, b, o_t, m_t, T, L)
    r_1, r_2 = turn(q_1, q_2, c.to(ACC)[:, None] * freq[None, :])
    r_1, r_2 = round_rows(r_1, r_2, DTYPE, ACC)
    own_1, own_2, o_1, o_2, sound_own = load_own(
        p_k_run, p_v_run, b, h, o_t, m_t, o_d, T, H, D, HALF, DTYPE, ACC
    )
    lost = 1 - (sound_q & sound_own).to(tl.int32)
    top = tl.sum(q_1 * own_1 + q_2 * own_2, 1) * SCALE
    total = tl.full((BT,), 1.0, ACC)
    for j in range(0, tl.cdiv(M, BM)):
        o_m = j * BM + tl.arange(0, BM)
        k_1, k_2, v_1, v_2, sound, c_key, seg_key = load_keys(
            p_keys, p_values, p_key_chunk, p_key_seg, b, pid, o_m, o_d, M, D, HALF, ACC
        )
        seen = visible(c, seg, c_key, seg_key, capacity)
        lost |= tl.max((seen & (sound == 0)[None, :]).to(tl.int32), 1)
        s = tl.where(seen, product(r_1, r_2, k_1, k_2, DOT, ACC) * SCALE, -float("inf"))
        new_top = tl.maximum(top, tl.max(s, 1))
        old = tl.exp(top - new_top)
        P = tl.exp(s - new_top[:, None])
        y_1, y_2 = weighted(P, v_1, v_2, DOT, ACC)
        o_1, o_2 = o_1 * old[:, None] + y_1, o_2 * old[:, None] + y_2
        total = total * old + tl.sum(P, 1)
        top = new_top
    o_1 = tl.where(lost[:, None] > 0, float("nan"), o_1 / total[:, None])
    o_2 = tl.where(lost[:, None] > 0, float("nan"), o_2 / total[:, None])
    store_rows(p_o + (b * T * H + h) * D, o_1, o_2, o_t, m_t, H * D, o_d, D, HALF)
    tl.store(p_lse + pid * T + o_t, top + tl.log(total), mask=m_t)


@triton.jit(do_not_specialize=["T", "M", "capacity"])
def rat_attention_bwd_kernel_queries(
    p_q, p_k_run, p_v_run, p_keys, p_values, p_pos, p_seg, p_key_chunk, p_key_seg, p_o, p_lse, p_do,
    p_delta, p_dq, p_dk_run, p_dv_run,
    T, M, capacity,
    SCALE: tl.constexpr, H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, HALF: tl.constexpr,
    BD: tl.constexpr, L: tl.constexpr, LOG_BASE: tl.constexpr, BT: tl.constexpr, BM: tl.constexpr,
    DOT: tl.constexpr, ACC: tl.constexpr,
) -> None:  # fmt: skip
    """Gradients of the queries and of the open chunk, and delta. Grid `[B * H * ceil(T / BT)]`."""
    NT = tl.cdiv(T, BT)
    pid = tl.program_id(0).to(tl.int64) // NT
    b, h = pid // H, pid % H
    DTYPE: tl.constexpr = p_q.dtype.element_ty
    o_d = tl.arange(0, BD)
    freq = rotation(o_d, HALF, LOG_BASE, ACC)
    o_t = tl.program_id(0) % NT * BT + tl.arange(0, BT)
    m_t = o_t < T
    at = (b * T * H + h) * D
    q_1, q_2, _sound_q = load_queries(p_q, b, h, o_t, m_t, o_d, T, G, D, HALF, ACC)
    c, seg = load_places(p_pos, p_seg, b, o_t, m_t, T, L)
    r_1, r_2 = turn(q_1, q_2, c.to(ACC)[:, None] * freq[None, :])
    r_1, r_2 = round_rows(r_1, r_2, DTYPE, ACC)
    o_1, o_2 = load_rows(p_o + at, o_t, m_t, H * D, o_d, D, HALF, ACC)
    do_1, do_2 = load_rows(p_do + at, o_t, m_t, H * D, o_d, D, HALF, ACC)
    do_1, do_2 = keep_rows(finite_rows(o_1, o_2), do_1, do_2)
    o_1, o_2 = keep_rows(finite_rows(o_1, o_2), o_1, o_2)
    delta = tl.sum(do_1 * o_1 + do_2 * o_2, 1)
    lse = tl.load(p_lse + pid * T + o_t, mask=m_t, other=0.0)
    tl.store(p_delta + pid * T + o_t, delta, mask=m_t)

    own_1, own_2, v_own_1, v_own_2, _sound_own = load_own(
        p_k_run, p_v_run, b, h, o_t, m_t, o_d, T, H, D, HALF, DTYPE, ACC
    )
    P_own = tl.exp(tl.sum(q_1 * own_1 + q_2 * own_2, 1) * SCALE - lse)
    dS_own = SCALE * P_own * (tl.sum(do_1 * v_own_1 + do_2 * v_own_2, 1) - delta)
    P_own, dS_own = P_own[:, None], dS_own[:, None]
    own_1, own_2 = dS_own * own_1, dS_own * own_2
    store_rows(p_dk_run + at, dS_own * q_1, dS_own * q_2, o_t, m_t, H * D, o_d, D, HALF)
    store_rows(p_dv_run + at, P_own * do_1, P_own * do_2, o_t, m_t, H * D, o_d, D, HALF)

    dq_1, dq_2 = tl.zeros((BT, BD), ACC), tl.zeros((BT, BD), ACC)
    for j in range(0, tl.cdiv(M, BM)):
        o_m = j * BM + tl.arange(0, BM)
        k_1, k_2, v_1, v_2, _sound_key, c_key, seg_key = load_keys(
            p_keys, p_values, p_key_chunk, p_key_seg, b, pid, o_m, o_d, M, D, HALF, ACC
        )
        seen = visible(c, seg, c_key, seg_key, capacity)
        s = product(r_1, r_2, k_1, k_2, DOT, ACC) * SCALE - lse[:, None]
        P = tl.exp(tl.where(seen, s, -float("inf")))
        dS = P * (product(do_1, do_2, v_1, v_2, DOT, ACC) - delta[:, None])
        y_1, y_2 = weighted(dS * SCALE, k_1, k_2, DOT, ACC)
        dq_1, dq_2 = dq_1 + y_1, dq_2 + y_2
    dq_1, dq_2 = turn(dq_1, dq_2, -c.to(ACC)[:, None] * freq[None, :])
    store_rows(p_dq + at, dq_1 + own_1, dq_2 + own_2, o_t, m_t, H * D, o_d, D, HALF)


@triton.jit(do_not_specialize=["T", "C", "M", "capacity"])
def rat_attention_bwd_kernel_keys(
    p_q, p_keys, p_values, p_pos, p_seg, p_key_chunk, p_key_seg, p_lse, p_delta, p_o, p_do,
    p_dkeys_out, p_dvalues_out, p_dkeys, p_dvalues,
    T, C, M, capacity,
    SCALE: tl.constexpr, H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, HALF: tl.constexpr,
    BD: tl.constexpr, L: tl.constexpr, LOG_BASE: tl.constexpr, BT: tl.constexpr, BM: tl.constexpr,
    DOT: tl.constexpr, ACC: tl.constexpr,
) -> None:  # fmt: skip
    """Gradients of the chunks finished in the window, not rotated.

    Grid `[B * H * ceil((M - C) / BM)]`: the carried slots get none.
    """
    NM = tl.cdiv(M - C, BM)
    pid = tl.program_id(0).to(tl.int64) // NM
    b, h = pid // H, pid % H
    DTYPE: tl.constexpr = p_q.dtype.element_ty
    o_d = tl.arange(0, BD)
    freq = rotation(o_d, HALF, LOG_BASE, ACC)
    block = tl.program_id(0) % NM
    o_m = C + block * BM + tl.arange(0, BM)
    k_1, k_2, v_1, v_2, _sound_key, c_key, seg_key = load_keys(
        p_keys, p_values, p_key_chunk, p_key_seg, b, pid, o_m, o_d, M, D, HALF, ACC
    )
    m_m = seg_key >= 0
    dk_1, dk_2 = load_rows(p_dkeys_out + pid * M * D, o_m, m_m, D, o_d, D, HALF, ACC)
    dv_1, dv_2 = load_rows(p_dvalues_out + pid * M * D, o_m, m_m, D, o_d, D, HALF, ACC)
    # No step before the block's first L steps sees one of its chunks.
    for i in range(block * BM * L // BT, tl.cdiv(T, BT)):
        o_t = i * BT + tl.arange(0, BT)
        m_t = o_t < T
        q_1, q_2, _sound_q = load_queries(p_q, b, h, o_t, m_t, o_d, T, G, D, HALF, ACC)
        c, seg = load_places(p_pos, p_seg, b, o_t, m_t, T, L)
        r_1, r_2 = turn(q_1, q_2, c.to(ACC)[:, None] * freq[None, :])
        r_1, r_2 = round_rows(r_1, r_2, DTYPE, ACC)
        at = (b * T * H + h) * D
        do_1, do_2 = load_rows(p_do + at, o_t, m_t, H * D, o_d, D, HALF, ACC)
        o_1, o_2 = load_rows(p_o + at, o_t, m_t, H * D, o_d, D, HALF, ACC)
        do_1, do_2 = keep_rows(finite_rows(o_1, o_2), do_1, do_2)
        lse = tl.load(p_lse + pid * T + o_t, mask=m_t, other=0.0)
        delta = tl.load(p_delta + pid * T + o_t, mask=m_t, other=0.0)
        seen = visible(c, seg, c_key, seg_key, capacity) & m_t[:, None]
        s = product(r_1, r_2, k_1, k_2, DOT, ACC) * SCALE - lse[:, None]
        P = tl.exp(tl.where(seen, s, -float("inf")))
        dS = P * (product(do_1, do_2, v_1, v_2, DOT, ACC) - delta[:, None])
        y_1, y_2 = weighted(tl.trans(dS * SCALE), r_1, r_2, DOT, ACC)
        dk_1, dk_2 = dk_1 + y_1, dk_2 + y_2
        y_1, y_2 = weighted(tl.trans(P), do_1, do_2, DOT, ACC)
        dv_1, dv_2 = dv_1 + y_1, dv_2 + y_2
    dk_1, dk_2 = turn(dk_1, dk_2, -c_key.to(ACC)[:, None] * freq[None, :])
    store_rows(p_dkeys + pid * M * D, dk_1, dk_2, o_m, o_m < M, D, o_d, D, HALF)
    store_rows(p_dvalues + pid * M * D, dv_1, dv_2, o_m, o_m < M, D, o_d, D, HALF)
