"""The delta rule in chunks: products of matrices, both directions by hand, in plain PyTorch.

Tensors are in chunks, `[N, G, L, ...]` with G rows and heads: what the loop over chunks reads is
contiguous. README.md derives the formulas; names are those of its sections.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from palaestra.kernels._common.autograd import by_hand
from palaestra.kernels._common.chunk import add_product, decay, join, split
from palaestra.kernels._common.runtime import asking_is_free
from palaestra.kernels._common.tril import inverse_unit_lower
from palaestra.kernels.delta.nonfinite import Clean, clean

_BLOCK = 65536
"""Numbers of one matrix `[L, L]` of all chunks and heads in a block of rows."""


class _Window(NamedTuple):
    """A window in chunks, G rows and heads."""

    q: Tensor  # (N, G, L, K)
    k: Tensor  # (N, G, L, K)
    v: Tensor  # (N, G, L, V)
    beta: Tensor  # (N, G, L, 1)
    D: Tensor  # (N, G, L, L)
    cin: Tensor  # (N, G, L, 1)
    cout: Tensor  # (N, G, L, 1)
    dec: Tensor  # (N, G, 1, 1)


class _Solved(NamedTuple):
    """What the forward direction finds in a window."""

    X: Tensor  # (N, G, L, L), (I + tril(beta C, -1))^-1
    P: Tensor  # (N, G, L, L), times the scale
    C: Tensor  # (N, G, L, L), strictly lower
    q_in: Tensor  # (N, G, L, K), cin Q times the scale
    k_in: Tensor  # (N, G, L, K), cin K
    k_out: Tensor  # (N, G, L, K), cout K
    E: Tensor  # (N, G, L, V), values less what the carried state says
    U: Tensor  # (N, G, L, V), what each token writes
    S: Tensor  # (N + 1, G, K, V), around the chunks


class DeltaChunk(torch.autograd.Function):
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
        (_, T, H, _), L = q.shape, min(L, q.shape[1])
        o, S_T, saved = torch.empty_like(v), torch.empty_like(state), []
        for rows in _blocks(q, L):
            g_b = None if g is None else g[rows]
            x = clean(q[rows], k[rows], v[rows], beta[rows], g_b, state[rows], reset[rows])
            w = _window(x, reset[rows], L)
            out, solved = _solve(w, x.state.flatten(0, 1), scale)
            o[rows], S_T[rows] = x.spoilt(_join(out, T, H), solved.S[-1].unflatten(0, (-1, H)))
            saved += [*w, *solved, x.bad_o, x.bad_state]
        ctx.save_for_backward(q, k, v, beta, g, reset, *saved)
        ctx.scale, ctx.L = scale, L
        return o, S_T

    @staticmethod
    @by_hand
    def backward(ctx: Any, do: Tensor, dS_T: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of all arguments."""
        q, k, v, beta, g, reset, *saved = ctx.saved_tensors
        (_, T, H, _), L, n = q.shape, ctx.L, len(_Window._fields)
        m = n + len(_Solved._fields)
        dq, dk, dv, dbeta, dS_0 = (torch.empty_like(x) for x in (q, k, v, beta, dS_T))
        dg = None if g is None else torch.empty_like(g)
        for rows in _blocks(q, L):
            w, solved, (bad_o, bad_state) = _Window(*saved[:n]), _Solved(*saved[n:m]), saved[m:][:2]
            saved = saved[m + 2 :]
            do_b, dS = do[rows].to(solved.S.dtype), dS_T[rows]
            if not asking_is_free(do) or bad_o.any():
                do_b, dS = do_b.masked_fill(bad_o, 0), dS.masked_fill(bad_state, 0)
            dS = dS.flatten(0, 1)
            *d, dS_first = _adjoint(w, solved, _split(do_b, L), dS, ctx.scale)
            dq[rows], dk[rows], dv[rows], dbeta[rows] = (_join(x, T, H) for x in d)
            dS_0[rows] = dS_first.unflatten(0, (-1, H))
            if dg is not None:
                x = _join((w.q * d[0]).sum(-1) - (w.v * d[2]).sum(-1), T, H)
                last = (dS * solved.S[-1]).sum((1, 2)).unflatten(0, (-1, H))
                dg[rows] = _later(x, last, reset[rows])
        return dq, dk, dv, dbeta, dg, dS_0, None, None, None


def _blocks(q: Tensor, L: int) -> list[slice]:
    """Return slices of rows whose matrices fit a core's cache; elsewhere than on CPU all rows."""
    B, T, H, _ = q.shape
    rows = max(1, _BLOCK // (T * H * L))
    if not asking_is_free(q):
        rows = B
    return [slice(b, b + rows) for b in range(0, B, rows)]


def _solve(w: _Window, state: Tensor, scale: float) -> tuple[Tensor, _Solved]:
    """Return outputs in chunks and what the other direction needs; `state [G, K, V]`."""
    P = (w.q @ w.k.mT).mul_(scale * w.D)
    C = (w.k @ w.k.mT).mul_(w.D).tril_(-1)
    X = inverse_unit_lower(w.beta * C)
    q_in, k_in, k_out = scale * w.cin * w.q, w.cin * w.k, w.cout * w.k
    E, U = torch.empty_like(w.v), torch.empty_like(w.v)
    S = state.new_empty(len(w.k) + 1, *state.shape)
    S[0] = state
    for n in range(len(w.k)):
        torch.baddbmm(w.v[n], k_in[n], S[n], alpha=-1, out=E[n])
        torch.bmm(X[n], w.beta[n] * E[n], out=U[n])
        torch.addcmul(k_out[n].mT @ U[n], w.dec[n], S[n], out=S[n + 1])
    o = add_product(P @ U, q_in, S[:-1])
    return o, _Solved(X, P, C, q_in, k_in, k_out, E, U, S)


def _adjoint(
    w: _Window, solved: _Solved, dO: Tensor, dS_T: Tensor, scale: float
) -> tuple[Tensor, ...]:
    """Return the gradients of q, k, v and beta in chunks, and of the carried state."""
    X, P, C, q_in, k_in, k_out, E, U, S = solved
    dU, dR, dV = P.mT @ dO, torch.empty_like(U), torch.empty_like(U)
    dS = torch.empty_like(S)
    torch.matmul(q_in.mT, dO, out=dS[:-1])
    dS[-1] = dS_T
    for n in reversed(range(len(w.k))):
        torch.bmm(X[n].mT, dU[n].baddbmm_(k_out[n], dS[n + 1]), out=dR[n])
        torch.mul(w.beta[n], dR[n], out=dV[n])
        dS[n].addcmul_(w.dec[n], dS[n + 1]).baddbmm_(k_in[n].mT, dV[n], alpha=-1)
    dP = (dO @ U.mT).mul_(scale * w.D)
    M = (dV @ U.mT).mul_(w.D).tril_(-1)
    dQ = (dP @ w.k).addcmul_(scale * w.cin, dO @ S[:-1].mT)
    dK = add_product(dP.mT @ w.q, M + M.mT, w.k, alpha=-1)
    dK.addcmul_(w.cout, U @ dS[1:].mT).addcmul_(w.cin, dV @ S[:-1].mT, value=-1)
    dbeta = add_product(E.clone(), C, U, alpha=-1).mul_(dR).sum(-1)
    return dQ, dK, dV, dbeta, dS[0]


def _window(x: Clean, reset: Tensor, L: int) -> _Window:
    g = x.q.new_zeros(1).expand(*x.q.shape[:2], 1) if x.g is None else x.g
    H, dtype = x.q.shape[2], x.state.dtype
    g = split(g.to(dtype), L).transpose(0, 1)
    left = decay(g, split(reset, L).transpose(0, 1))
    D, cin, cout, dec = (y.expand(-1, -1, H, *y.shape[3:]).flatten(1, 2) for y in left)
    q, k, v, beta = (_split(y.to(dtype), L) for y in (x.q, x.k, x.v, x.beta.unsqueeze(-1)))
    return _Window(q, k, v, beta, D, cin.unsqueeze(-1), cout.unsqueeze(-1), dec[..., None, None])


def _later(x: Tensor, last: Tensor, reset: Tensor) -> Tensor:
    """Return the gradient of g: the sum of `x [B, T, H]` from each step to its episode's end.

    Args:
      x: `[B, T, H]`.
      last: `[B, H]`, what the episode of the last step has beyond the window.
      reset: bool `[B, T]`, where the gradient is 0.
    """
    # In float64, as sums over other episodes are taken off.
    sums = x.double().flip(1).cumsum(1).flip(1)
    sums = torch.cat([sums, -last.double().unsqueeze(1)], 1)
    T = reset.shape[1]
    first = torch.arange(1, T, device=x.device).masked_fill(~reset[:, 1:], T)
    after = pad(first.flip(1).cummin(1).values.flip(1), (0, 1), value=T)  # (B, T)
    sums = sums[:, :T] - sums.gather(1, after.unsqueeze(-1).expand_as(x))
    return sums.masked_fill(reset.unsqueeze(-1), 0)


def _split(x: Tensor, L: int) -> Tensor:
    """Return `x [B, T, H, D]` as chunks `[N, G, L, D]`."""
    return split(x, L).permute(1, 0, 3, 2, 4).contiguous().flatten(1, 2)


def _join(x: Tensor, T: int, H: int) -> Tensor:
    """Return chunks `[N, G, L, ...]` as `[B, T, H, ...]`."""
    return join(x.unflatten(1, (-1, H)).movedim(0, 1).transpose(2, 3), T)
