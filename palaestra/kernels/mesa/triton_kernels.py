# mypy: disable-error-code="no-untyped-def, import-untyped, import-not-found"
"""The Triton kernels of Mesa: one program per row and head goes through the chunks.

Names: p_ pointer, b_ block, o_ offsets, m_ mask. Sums, solves and products are of type ACC.
"""

import triton
import triton.language as tl


@triton.jit
def dot(a, b, ACC: tl.constexpr) -> tl.tensor:
    """Return a @ b in full precision: solves lose digits with their condition number."""
    return tl.dot(a, b, input_precision="ieee", out_dtype=ACC)


@triton.jit
def load(p_x, o_rows, m_rows, o_cols, WIDTH: tl.constexpr, stride, ACC: tl.constexpr) -> tl.tensor:
    """Return the block of rows at `o_rows * stride` and columns below WIDTH, zeros elsewhere."""
    mask = m_rows[:, None] & (o_cols < WIDTH)[None, :]
    return tl.load(p_x + o_rows[:, None] * stride + o_cols[None, :], mask=mask, other=0.0).to(ACC)


@triton.jit
def store(p_x, b_x, o_rows, m_rows, o_cols, WIDTH: tl.constexpr, stride) -> None:
    """Write what `load` reads."""
    mask = m_rows[:, None] & (o_cols < WIDTH)[None, :]
    tl.store(p_x + o_rows[:, None] * stride + o_cols[None, :], b_x, mask=mask)


@triton.jit
def decays(
    p_g, p_reset, o_row, o_step, m_t, ACC: tl.constexpr, CUT: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """Return log decays, and resets: what leaves nothing of the sums acts as one, too."""
    b_g = tl.load(p_g + o_row, mask=m_t, other=0.0).to(ACC)
    b_g = tl.where(b_g > 0, float("nan"), b_g)
    b_r = tl.load(p_reset + o_step, mask=m_t, other=0).to(tl.int32)
    return b_g, tl.where(b_g < CUT, 1, b_r)


@triton.jit
def remains(b_g, b_r, L: tl.constexpr, ACC: tl.constexpr) -> tuple[tl.tensor, ...]:
    """Return D [L, L], cin [L], cout [L], dec of a chunk, as `_common.chunk.decay`."""
    o_l = tl.arange(0, L)
    # What matters are differences of the sums, which lose digits in float32 after strong decay.
    b_G = tl.cumsum(tl.where(b_r > 0, 0.0, b_g).to(tl.float64), axis=0)
    b_seg = tl.cumsum(b_r, axis=0)
    G_L = tl.sum(tl.where(o_l == L - 1, b_G, 0.0), axis=0)
    seg_L = tl.sum(b_r, axis=0)
    same = (b_seg[:, None] == b_seg[None, :]) & (o_l[:, None] >= o_l[None, :])
    gap = tl.where(same, b_G[:, None] - b_G[None, :], 0.0).to(ACC)
    b_D = tl.where(same, tl.exp(gap), 0.0)
    b_cin = tl.where(b_seg == 0, tl.exp(b_G.to(ACC)), 0.0)
    lasts = b_seg == seg_L
    b_cout = tl.where(lasts, tl.exp(tl.where(lasts, G_L - b_G, 0.0).to(ACC)), 0.0)
    dec = tl.where(seg_L == 0, tl.exp(G_L.to(ACC)), 0.0)
    return b_D, b_cin, b_cout, dec


@triton.jit
def product(b_x, b_kbT, b_k, b_hkk, b_lamb, b_D, b_cin, ACC: tl.constexpr) -> tl.tensor:
    """Return A x of every token, [L, BK]."""
    b_y = dot(dot(b_x, b_kbT, ACC) * b_D, b_k, ACC)
    return b_y + dot(b_cin[:, None] * b_x, b_hkk, ACC) + b_lamb[None, :] * b_x


@triton.jit
def solve(
    b_b, b_kb, b_k, b_hkk, b_lamb, b_D, b_cin, num_steps, tol, BK: tl.constexpr, ACC: tl.constexpr
) -> tl.tensor:
    """Return x with A x = b for every token, [L, BK], as `solve.conjugate_gradient`."""
    b_kbT = tl.trans(b_kb)
    o_k = tl.arange(0, BK)
    b_diag = tl.sum(tl.where(o_k[:, None] == o_k[None, :], b_hkk, 0.0), axis=0)
    b_diag = b_cin[:, None] * b_diag[None, :] + dot(b_D, b_kb * b_k, ACC) + b_lamb[None, :]
    b_x = b_b / b_diag
    b_res = b_b - product(b_x, b_kbT, b_k, b_hkk, b_lamb, b_D, b_cin, ACC)
    b_p = b_res
    b_d = tl.sum(b_res * b_res, axis=1)
    # torch.compile passes real arguments in float64.
    b_stop = (tl.sum(b_b * b_b, axis=1) * tol * tol).to(ACC)
    live = b_d > b_stop
    left = num_steps * tl.max(live.to(tl.int32), axis=0)
    while left > 0:
        b_Ap = product(b_p, b_kbT, b_k, b_hkk, b_lamb, b_D, b_cin, ACC)
        b_pAp = tl.sum(b_p * b_Ap, axis=1)
        downhill = live & (b_pAp > 0)
        b_alpha = tl.where(downhill, b_d, 0.0) / tl.where(downhill, b_pAp, 1.0)
        b_x += b_alpha[:, None] * b_p
        b_res -= b_alpha[:, None] * b_Ap
        b_next = tl.sum(b_res * b_res, axis=1)
        b_p = b_res + (tl.where(live, b_next, 0.0) / tl.where(live, b_d, 1.0))[:, None] * b_p
        b_d = b_next
        live = b_d > b_stop
        left = (left - 1) * tl.max(live.to(tl.int32), axis=0)
    return b_x


@triton.jit
def relative(b_b, b_Ax, ACC: tl.constexpr) -> tl.tensor:
    """Return |b - A x| / |b| of every token; x is 0 where b is."""
    size = tl.sqrt(tl.sum(b_b * b_b, axis=1))
    b_r = tl.sqrt(tl.sum((b_b - b_Ax) * (b_b - b_Ax), axis=1))
    return b_r / tl.where(size > 0, size, 1.0)


# fmt: off
@triton.jit(do_not_specialize=["T", "num_steps"])
def mesa_fwd_kernel(
    p_q, p_k, p_v, p_g, p_beta, p_lamb, p_reset, p_hkk_0, p_hkv_0, p_o, p_x, p_hkk, p_hkv,
    p_residual, T, num_steps, tol,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, L: tl.constexpr, BK: tl.constexpr,
    BV: tl.constexpr, ACC: tl.constexpr, CUT: tl.constexpr,
) -> None:
    # fmt: on
    """Outputs, solutions and final sums of one row and head."""
    pid = tl.program_id(0).to(tl.int64)
    row, head = pid // H, pid % H
    o_k, o_v, o_l = tl.arange(0, BK), tl.arange(0, BV), tl.arange(0, L)
    m_k = o_k < K
    # Padded channels have the solution 0 / 1.
    b_lamb = tl.load(p_lamb + head * K + o_k, mask=m_k, other=1.0).to(ACC)
    b_hkk = load(p_hkk_0 + pid * K * K, o_k, m_k, o_k, K, K, ACC)
    b_hkv = load(p_hkv_0 + pid * K * V, o_k, m_k, o_v, V, V, ACC)
    for n in range(0, tl.cdiv(T, L)):
        o_t = n * L + o_l
        m_t = o_t < T
        o_row = (row * T + o_t) * H + head
        b_q = load(p_q, o_row, m_t, o_k, K, K, ACC)
        b_k = load(p_k, o_row, m_t, o_k, K, K, ACC)
        b_v = load(p_v, o_row, m_t, o_v, V, V, ACC)
        b_kb = tl.load(p_beta + o_row, mask=m_t, other=0.0).to(ACC)[:, None] * b_k
        b_g, b_r = decays(p_g, p_reset, o_row, row * T + o_t, m_t, ACC, CUT)
        b_D, b_cin, b_cout, dec = remains(b_g, b_r, L, ACC)
        b_x = solve(b_q, b_kb, b_k, b_hkk, b_lamb, b_D, b_cin, num_steps, tol, BK, ACC)
        b_o = dot(dot(b_x, tl.trans(b_kb), ACC) * b_D, b_v, ACC)
        b_o += dot(b_cin[:, None] * b_x, b_hkv, ACC)
        store(p_o, b_o, o_row, m_t, o_v, V, V)
        store(p_x, b_x, o_row, m_t, o_k, K, K)
        if p_residual is not None:
            b_Ax = product(b_x, tl.trans(b_kb), b_k, b_hkk, b_lamb, b_D, b_cin, ACC)
            tl.store(p_residual + o_row, relative(b_q, b_Ax, ACC), mask=m_t)
        b_write = tl.trans(b_cout[:, None] * b_kb)
        b_hkk = dec * b_hkk + dot(b_write, b_k, ACC)
        b_hkv = dec * b_hkv + dot(b_write, b_v, ACC)
    store(p_hkk + pid * K * K, b_hkk, o_k, m_k, o_k, K, K)
    store(p_hkv + pid * K * V, b_hkv, o_k, m_k, o_v, V, V)


# fmt: off
@triton.jit(do_not_specialize=["T", "num_steps"])
def mesa_bwd_kernel_solve(
    p_k, p_v, p_g, p_beta, p_lamb, p_reset, p_hkk_0, p_hkv_0, p_x, p_do, p_dhkk, p_dhkv, p_y,
    p_flow, p_dlast, p_dlamb, p_residual, T, num_steps, tol,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, L: tl.constexpr, BK: tl.constexpr,
    BV: tl.constexpr, ACC: tl.constexpr, CUT: tl.constexpr,
) -> None:
    # fmt: on
    """In the order of time: y = dq, what each token reads, and the parts that need the sums."""
    pid = tl.program_id(0).to(tl.int64)
    row, head = pid // H, pid % H
    o_k, o_v, o_l = tl.arange(0, BK), tl.arange(0, BV), tl.arange(0, L)
    m_k = o_k < K
    b_lamb = tl.load(p_lamb + head * K + o_k, mask=m_k, other=1.0).to(ACC)
    b_hkk = load(p_hkk_0 + pid * K * K, o_k, m_k, o_k, K, K, ACC)
    b_hkv = load(p_hkv_0 + pid * K * V, o_k, m_k, o_v, V, V, ACC)
    b_dlamb = tl.zeros([BK], dtype=ACC)
    for n in range(0, tl.cdiv(T, L)):
        o_t = n * L + o_l
        m_t = o_t < T
        o_row = (row * T + o_t) * H + head
        b_k = load(p_k, o_row, m_t, o_k, K, K, ACC)
        b_v = load(p_v, o_row, m_t, o_v, V, V, ACC)
        b_x = load(p_x, o_row, m_t, o_k, K, K, ACC)
        b_do = load(p_do, o_row, m_t, o_v, V, V, ACC)
        b_kb = tl.load(p_beta + o_row, mask=m_t, other=0.0).to(ACC)[:, None] * b_k
        b_g, b_r = decays(p_g, p_reset, o_row, row * T + o_t, m_t, ACC, CUT)
        b_D, b_cin, b_cout, dec = remains(b_g, b_r, L, ACC)
        b_b = dot(dot(b_do, tl.trans(b_v), ACC) * b_D, b_kb, ACC)
        b_b += dot(b_cin[:, None] * b_do, tl.trans(b_hkv), ACC)
        b_y = solve(b_b, b_kb, b_k, b_hkk, b_lamb, b_D, b_cin, num_steps, tol, BK, ACC)
        b_Ax = product(b_x, tl.trans(b_kb), b_k, b_hkk, b_lamb, b_D, b_cin, ACC)
        b_flow = tl.sum(b_x * b_b - b_y * (b_Ax - b_lamb[None, :] * b_x), axis=1)
        b_dlamb -= tl.sum(b_x * b_y, axis=0)
        store(p_y, b_y, o_row, m_t, o_k, K, K)
        tl.store(p_flow + o_row, b_flow, mask=m_t)
        if p_residual is not None:
            b_Ay = product(b_y, tl.trans(b_kb), b_k, b_hkk, b_lamb, b_D, b_cin, ACC)
            tl.store(p_residual + o_row, relative(b_b, b_Ay, ACC), mask=m_t)
        b_write = tl.trans(b_cout[:, None] * b_kb)
        b_hkk = dec * b_hkk + dot(b_write, b_k, ACC)
        b_hkv = dec * b_hkv + dot(b_write, b_v, ACC)
    b_dhkk = load(p_dhkk + pid * K * K, o_k, m_k, o_k, K, K, ACC)
    b_dhkv = load(p_dhkv + pid * K * V, o_k, m_k, o_v, V, V, ACC)
    dlast = tl.sum(tl.sum(b_dhkk * b_hkk, axis=1), axis=0)
    dlast += tl.sum(tl.sum(b_dhkv * b_hkv, axis=1), axis=0)
    tl.store(p_dlast + pid, dlast)
    tl.store(p_dlamb + pid * K + o_k, b_dlamb, mask=m_k)


# fmt: off
@triton.jit(do_not_specialize=["T"])
def mesa_bwd_kernel_back(
    p_k, p_v, p_g, p_beta, p_reset, p_x, p_y, p_do, p_dhkk, p_dhkv, p_flow, p_dlast, p_dk, p_dv,
    p_dg, p_dbeta, p_dhkk_0, p_dhkv_0, T,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, L: tl.constexpr, BK: tl.constexpr,
    BV: tl.constexpr, ACC: tl.constexpr, CUT: tl.constexpr,
) -> None:
    # fmt: on
    """Back through time: gradients of k, v, g, beta and of the first sums."""
    pid = tl.program_id(0).to(tl.int64)
    row, head = pid // H, pid % H
    o_k, o_v, o_l = tl.arange(0, BK), tl.arange(0, BV), tl.arange(0, L)
    m_k = o_k < K
    b_dhkk = load(p_dhkk + pid * K * K, o_k, m_k, o_k, K, K, ACC)
    b_dhkv = load(p_dhkv + pid * K * V, o_k, m_k, o_v, V, V, ACC)
    carried = tl.load(p_dlast + pid).to(ACC)
    chunks = tl.cdiv(T, L)
    for i in range(0, chunks):
        o_t = (chunks - 1 - i) * L + o_l
        m_t = o_t < T
        o_row = (row * T + o_t) * H + head
        b_k = load(p_k, o_row, m_t, o_k, K, K, ACC)
        b_v = load(p_v, o_row, m_t, o_v, V, V, ACC)
        b_x = load(p_x, o_row, m_t, o_k, K, K, ACC)
        b_y = load(p_y, o_row, m_t, o_k, K, K, ACC)
        b_do = load(p_do, o_row, m_t, o_v, V, V, ACC)
        b_beta = tl.load(p_beta + o_row, mask=m_t, other=0.0).to(ACC)
        b_g, b_r = decays(p_g, p_reset, o_row, row * T + o_t, m_t, ACC, CUT)
        b_D, b_cin, b_cout, dec = remains(b_g, b_r, L, ACC)
        b_kb = b_beta[:, None] * b_k
        b_kbT, b_write = tl.trans(b_kb), b_cout[:, None] * b_kb

        # Two linear attentions: one reads v with x for do, the other reads k with y for -x.
        b_P = tl.trans(dot(b_x, b_kbT, ACC) * b_D)
        b_dP = tl.trans(dot(b_do, tl.trans(b_v), ACC) * b_D)
        b_dv = dot(b_P, b_do, ACC) + dot(b_write, b_dhkv, ACC)
        b_dkb = dot(b_dP, b_x, ACC)
        b_P = tl.trans(dot(b_y, b_kbT, ACC) * b_D)
        b_dP = tl.trans(dot(b_x, tl.trans(b_k), ACC) * b_D)
        b_dk = dot(b_write, b_dhkk, ACC) - dot(b_P, b_x, ACC)
        b_dkb -= dot(b_dP, b_y, ACC)
        b_out = dot(b_v, tl.trans(b_dhkv), ACC) + dot(b_k, tl.trans(b_dhkk), ACC)
        b_dkb += b_cout[:, None] * b_out
        b_dbeta = tl.sum(b_k * b_dkb, axis=1)
        store(p_dv, b_dv, o_row, m_t, o_v, V, V)
        store(p_dk, b_dk + b_beta[:, None] * b_dkb, o_row, m_t, o_k, K, K)
        tl.store(p_dbeta + o_row, b_dbeta, mask=m_t)

        b_flow = tl.load(p_flow + o_row, mask=m_t, other=0.0).to(ACC) - b_beta * b_dbeta
        b_seg = tl.cumsum(b_r, axis=0)
        later = (b_seg[:, None] == b_seg[None, :]) & (o_l[:, None] >= o_l[None, :])
        b_dg = tl.sum(tl.where(later, b_flow[:, None], 0.0), axis=0)
        b_dg += tl.where(b_seg == tl.sum(b_r, axis=0), carried, 0.0)
        tl.store(p_dg + o_row, tl.where(b_r > 0, 0.0, b_dg), mask=m_t)
        carried = tl.sum(tl.where((o_l == 0) & (b_r == 0), b_dg, 0.0), axis=0)

        b_dhkv = dec * b_dhkv + dot(tl.trans(b_cin[:, None] * b_x), b_do, ACC)
        b_dhkk = dec * b_dhkk - dot(tl.trans(b_cin[:, None] * b_y), b_x, ACC)
    store(p_dhkk_0 + pid * K * K, b_dhkk, o_k, m_k, o_k, K, K)
    store(p_dhkv_0 + pid * K * V, b_dhkv, o_k, m_k, o_v, V, V)
