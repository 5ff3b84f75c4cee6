# mypy: disable-error-code="import-untyped, import-not-found, no-untyped-def"
"""The recurrence of RAT on the GPU: one program per row and head walks through the window.

A head of width D is held as two vectors, its halves, since rotary positions pair `(i, i + D / 2)`;
an odd width, which is never rotated, leaves the second one shorter.
"""

import triton
import triton.language as tl


@triton.jit
def rotation(o_d, HALF: tl.constexpr, LOG_BASE: tl.constexpr, ACC: tl.constexpr) -> tl.tensor:
    """Return the angle that one chunk adds to each pair; `LOG_BASE` is to base 2, None no turn."""
    if LOG_BASE is None:
        freq = tl.zeros(o_d.shape, ACC)
    else:
        # Rounded once, from float64: an error of the angle grows with the chunk index.
        freq = tl.exp2(o_d.to(tl.float64) * (-LOG_BASE / HALF)).to(ACC)
    return freq


@triton.jit
def turn(x_1, x_2, angle) -> tuple[tl.tensor, tl.tensor]:
    """Rotate the pairs `(x_1, x_2)`."""
    cos, sin = tl.cos(angle), tl.sin(angle)
    return x_1 * cos - x_2 * sin, x_2 * cos + x_1 * sin


@triton.jit
def load_halves(
    p_x, o_d, D: tl.constexpr, HALF: tl.constexpr, ACC: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """Load one head, `[D]` at `p_x`, as halves."""
    x_1 = tl.load(p_x + o_d, mask=o_d < HALF, other=0.0).to(ACC)
    x_2 = tl.load(p_x + HALF + o_d, mask=o_d < D - HALF, other=0.0).to(ACC)
    return x_1, x_2


@triton.jit
def store_halves(p_x, x_1, x_2, o_d, D: tl.constexpr, HALF: tl.constexpr) -> None:
    """Store one head, `[D]` at `p_x`."""
    tl.store(p_x + o_d, x_1, mask=o_d < HALF)
    tl.store(p_x + HALF + o_d, x_2, mask=o_d < D - HALF)


@triton.jit(do_not_specialize=["T", "C", "M"])
def rat_scan_fwd_kernel(
    p_k, p_v, p_g, p_reset, p_pos0, p_k0, p_v0, p_k_slot, p_v_slot, p_k_run, p_v_run, p_keys,
    p_values, p_pos, p_seg, p_key_chunk, p_key_seg, p_k_last, p_v_last,
    T, C, M,
    H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, HALF: tl.constexpr, BD: tl.constexpr,
    L: tl.constexpr, LOG_BASE: tl.constexpr, ACC: tl.constexpr,
) -> None:  # fmt: skip
    """Running keys and values, and those of finished chunks with their place.

    Grid `[B * H]`. Keys `[B, H, M, D]`: the C carried slots, then one for each L steps of the
    window, which hold at most one end; segment -1 says that there is none. The first head of a row
    writes what all heads share.
    """
    pid = tl.program_id(0).to(tl.int64)
    b, h = pid // H, pid % H
    o_d = tl.arange(0, BD)
    freq = rotation(o_d, HALF, LOG_BASE, ACC)
    k_1, k_2 = load_halves(p_k0 + pid * D, o_d, D, HALF, ACC)
    v_1, v_2 = load_halves(p_v0 + pid * D, o_d, D, HALF, ACC)
    pos = tl.load(p_pos0 + b) - 1
    seg = pos * 0
    last = (pos + 1) // L - 1
    for i in range(0, C):
        x_1, x_2 = load_halves(p_k_slot + (pid * C + i) * D, o_d, D, HALF, ACC)
        store_halves(p_keys + (pid * M + i) * D, x_1, x_2, o_d, D, HALF)
        x_1, x_2 = load_halves(p_v_slot + (pid * C + i) * D, o_d, D, HALF, ACC)
        store_halves(p_values + (pid * M + i) * D, x_1, x_2, o_d, D, HALF)
        # last - i may be negative, where the remainder's sign depends on the machine.
        held = last - (last - i + C) % C
        tl.store(p_key_chunk + b * M + i, held, mask=h == 0)
        tl.store(p_key_seg + b * M + i, tl.where(held >= 0, 0, -1), mask=h == 0)
    end_chunk, end_seg = pos * 0, pos * 0 - 1
    for t in range(0, T):
        reset = tl.load(p_reset + b * T + t).to(tl.int32)
        pos = (pos + 1) * (1 - reset)
        seg += reset
        inside = pos % L
        x = (b * T + t) * H + h
        g_1, g_2 = load_halves(p_g + x * D, o_d, D, HALF, ACC)
        y_1, y_2 = load_halves(p_k + ((b * T + t) * G + h % G) * D, o_d, D, HALF, ACC)
        k_1 = (1 - g_1) * y_1 + tl.where(inside == 0, 0.0, g_1 * k_1)
        k_2 = (1 - g_2) * y_2 + tl.where(inside == 0, 0.0, g_2 * k_2)
        y_1, y_2 = load_halves(p_v + x * D, o_d, D, HALF, ACC)
        v_1 = (1 - g_1) * y_1 + tl.where(inside == 0, 0.0, g_1 * v_1)
        v_2 = (1 - g_2) * y_2 + tl.where(inside == 0, 0.0, g_2 * v_2)
        store_halves(p_k_run + x * D, k_1, k_2, o_d, D, HALF)
        store_halves(p_v_run + x * D, v_1, v_2, o_d, D, HALF)
        c = pos // L
        m = C + t // L
        end_seg = tl.where(inside * 0 + t % L == 0, -1, end_seg)
        if inside == L - 1:
            end_chunk, end_seg = c, seg
            r_1, r_2 = turn(k_1, k_2, c.to(ACC) * freq)
            store_halves(p_keys + (pid * M + m) * D, r_1, r_2, o_d, D, HALF)
            store_halves(p_values + (pid * M + m) * D, v_1, v_2, o_d, D, HALF)
        tl.store(p_pos + b * T + t, pos, mask=h == 0)
        tl.store(p_seg + b * T + t, seg, mask=h == 0)
        tl.store(p_key_chunk + b * M + m, end_chunk, mask=h == 0)
        tl.store(p_key_seg + b * M + m, end_seg, mask=h == 0)
    store_halves(p_k_last + pid * D, k_1, k_2, o_d, D, HALF)
    store_halves(p_v_last + pid * D, v_1, v_2, o_d, D, HALF)


@triton.jit(do_not_specialize=["T", "C", "M"])
def rat_scan_bwd_kernel(
    p_k, p_v, p_g, p_k0, p_v0, p_k_run, p_v_run, p_pos, p_dk_run, p_dv_run, p_dkeys, p_dvalues,
    p_dk_last, p_dv_last, p_dk, p_dv, p_dg, p_dk0, p_dv0,
    T, C, M,
    H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, L: tl.constexpr,
    ACC: tl.constexpr,
) -> None:  # fmt: skip
    """Gradients of inputs, gates and the carried pair, last step first. Grid `[B * H]`.

    `a_lam` is the gate of the step after times its lam: what a step hands to the one before it.
    """
    pid = tl.program_id(0).to(tl.int64)
    b, h = pid // H, pid % H
    o_d = tl.arange(0, BD)
    m_d = o_d < D
    ak_lam = tl.load(p_dk_last + pid * D + o_d, mask=m_d, other=0.0).to(ACC)
    av_lam = tl.load(p_dv_last + pid * D + o_d, mask=m_d, other=0.0).to(ACC)
    for s in range(0, T):
        t = T - 1 - s
        inside = tl.load(p_pos + b * T + t) % L
        x = ((b * T + t) * H + h) * D + o_d
        before = x - tl.where(inside * 0 + t > 0, H * D, 0)
        lam_k = ak_lam + tl.load(p_dk_run + x, mask=m_d, other=0.0)
        lam_v = av_lam + tl.load(p_dv_run + x, mask=m_d, other=0.0)
        e = (pid * M + C + t // L) * D + o_d
        m_e = o_d < tl.where(inside == L - 1, D, 0)
        lam_k += tl.load(p_dkeys + e, mask=m_e, other=0.0)
        lam_v += tl.load(p_dvalues + e, mask=m_e, other=0.0)
        g = tl.load(p_g + x, mask=m_d, other=0.0).to(ACC)
        k = tl.load(p_k + ((b * T + t) * G + h % G) * D + o_d, mask=m_d, other=0.0).to(ACC)
        v = tl.load(p_v + x, mask=m_d, other=0.0).to(ACC)
        h_k = tl.load(p_k_run + before, mask=m_d, other=0.0)
        h_v = tl.load(p_v_run + before, mask=m_d, other=0.0)
        if t == 0:
            h_k = tl.load(p_k0 + pid * D + o_d, mask=m_d, other=0.0).to(ACC)
            h_v = tl.load(p_v0 + pid * D + o_d, mask=m_d, other=0.0).to(ACC)
        h_k = tl.where(inside == 0, 0.0, h_k)
        h_v = tl.where(inside == 0, 0.0, h_v)
        tl.store(p_dk + x, (1 - g) * lam_k, mask=m_d)
        tl.store(p_dv + x, (1 - g) * lam_v, mask=m_d)
        tl.store(p_dg + x, lam_k * (h_k - k) + lam_v * (h_v - v), mask=m_d)
        ak_lam = tl.where(inside == 0, 0.0, g * lam_k)
        av_lam = tl.where(inside == 0, 0.0, g * lam_v)
    tl.store(p_dk0 + pid * D + o_d, ak_lam, mask=m_d)
    tl.store(p_dv0 + pid * D + o_d, av_lam, mask=m_d)
