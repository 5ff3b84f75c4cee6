"""The delta rule in chunks: products of matrices, both directions by hand, in plain PyTorch.

Tensors are in chunks, `[N, B, H, L, ...]`: what the loop over chunks reads is contiguous.
README.md derives the formulas; names are those of its sections.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from palaestra.kernels._common.chunk import decay, join, split
from palaestra.kernels._common.tril import inverse_unit_lower
from palaestra.kernels.delta.broken import Clean, clean

_BLOCK = 65536
"""Numbers of one matrix `[L, L]` of all chunks and heads in a block of rows."""


class _Window(NamedTuple):
    """A window in chunks; decays have one head where there is no gate."""

    q: Tensor  # (N, B, H, L, K), times the scale
    k: Tensor  # (N, B, H, L, K)
    v: Tensor  # (N, B, H, L, V)
    beta: Tensor  # (N, B, H, L, 1)
    D: Tensor  # (N, B, H, L, L)
    cin: Tensor  # (N, B, H, L, 1)
    cout: Tensor  # (N, B, H, L, 1)
    dec: Tensor  # (N, B, H, 1, 1)


class _Solved(NamedTuple):
    """What the forward direction finds in a window."""

    X: Tensor  # (N, B, H, L, L), (I + tril(beta C, -1))^-1
    P: Tensor  # (N, B, H, L, L)
    C: Tensor  # (N, B, H, L, L), strictly lower
    E: Tensor  # (N, B, H, L, V), values less what the carried state says
    U: Tensor  # (N, B, H, L, V), what each token writes
    S: Tensor  # (N, B, H, K, V), before each chunk


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
        T, L = q.shape[1], min(L, q.shape[1])
        o, S_T, saved = torch.empty_like(v), torch.empty_like(state), []
        for rows in _blocks(q, L):
            g_b = None if g is None else g[rows]
            x = clean(q[rows], k[rows], v[rows], beta[rows], g_b, state[rows], reset[rows])
            w = _window(x, reset[rows], scale, L)
            out, S, solved = _solve(w, x.state)
            o[rows] = _join(out, T).masked_fill(x.bad_o, torch.nan)
            S_T[rows] = S.masked_fill(x.bad_state, torch.nan)
            saved += [*w, *solved, S, x.bad_o, x.bad_state]
        ctx.save_for_backward(q, k, v, beta, g, reset, *saved)
        ctx.scale, ctx.L = scale, L
        return o, S_T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Tensor, dS_T: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of all arguments."""
        q, k, v, beta, g, reset, *saved = ctx.saved_tensors
        T, L, n, m = q.shape[1], ctx.L, len(_Window._fields), len(_Solved._fields)
        dq, dk, dv, dbeta, dS_0 = (torch.empty_like(x) for x in (q, k, v, beta, dS_T))
        dg = None if g is None else torch.empty_like(g)
        for rows in _blocks(q, L):
            w, solved = _Window(*saved[:n]), _Solved(*saved[n : n + m])
            S_T, bad_o, bad_state = saved[n + m : n + m + 3]
            saved = saved[n + m + 3 :]
            dO = _split(do[rows].masked_fill(bad_o, 0).to(S_T.dtype), L)
            dS = dS_T[rows].masked_fill(bad_state, 0)
            with torch.autocast(do.device.type, enabled=False):
                dQ, dK, dV, dB, dS_0[rows] = _adjoint(w, solved, dO, dS)
            dk[rows], dv[rows] = _join(dK, T), _join(dV, T)
            dq[rows], dbeta[rows] = _join(dQ, T) * ctx.scale, _join(dB, T)
            if dg is not None:
                x = _join((w.q * dQ).sum(-1) - (w.v * dV).sum(-1), T)
                dg[rows] = _later(x, (dS * S_T).sum((2, 3)), reset[rows])
        return dq, dk, dv, dbeta, dg, dS_0, None, None, None


def _blocks(q: Tensor, L: int) -> list[slice]:
    """Return slices of rows whose matrices fit a core's cache; elsewhere than on CPU all rows."""
    B, T, H, _ = q.shape
    rows = max(1, _BLOCK // (T * H * L))
    if q.device.type != "cpu" or torch.compiler.is_compiling():
        rows = B
    return [slice(b, b + rows) for b in range(0, B, rows)]


def _solve(w: _Window, state: Tensor) -> tuple[Tensor, Tensor, _Solved]:
    """Return outputs in chunks, the final state and what the other direction needs."""
    P = (w.q @ w.k.mT).mul_(w.D)
    C = (w.k @ w.k.mT).mul_(w.D).tril_(-1)
    X = inverse_unit_lower(w.beta * C)
    k_in, k_out = w.cin * w.k, w.cout * w.k
    E, U = torch.empty_like(w.v), torch.empty_like(w.v)
    S = state.new_empty(len(w.k) + 1, *state.shape)
    S[0] = state
    for n in range(len(w.k)):
        torch.sub(w.v[n], k_in[n] @ S[n], out=E[n])
        torch.matmul(X[n], w.beta[n] * E[n], out=U[n])
        torch.addcmul(k_out[n].mT @ U[n], w.dec[n], S[n], out=S[n + 1])
    o = (P @ U).add_((w.cin * w.q) @ S[:-1])
    return o, S[-1], _Solved(X, P, C, E, U, S[:-1])


def _adjoint(
    w: _Window, solved: _Solved, dO: Tensor, dS_T: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of q (scaled), k, v and beta in chunks, and of the carried state."""
    X, P, C, E, U, S = solved
    k_in, k_out = w.cin * w.k, w.cout * w.k
    dU, dS_q = P.mT @ dO, (w.cin * w.q).mT @ dO
    dR, dV = torch.empty_like(U), torch.empty_like(U)
    dS = S.new_empty(len(S) + 1, *dS_T.shape)  # after each chunk, that of the carried state first
    dS[-1] = dS_T
    for n in reversed(range(len(S))):
        torch.matmul(X[n].mT, dU[n].add_(k_out[n] @ dS[n + 1]), out=dR[n])
        torch.mul(w.beta[n], dR[n], out=dV[n])
        torch.addcmul(dS_q[n], w.dec[n], dS[n + 1], out=dS[n]).sub_(k_in[n].mT @ dV[n])
    dP = (dO @ U.mT).mul_(w.D)
    M = (dV @ U.mT).mul_(w.D).tril_(-1)
    dQ = (dP @ w.k).add_(w.cin * (dO @ S.mT))
    dK = (dP.mT @ w.q).sub_(M @ w.k).sub_(M.mT @ w.k)
    dK.add_(w.cout * (U @ dS[1:].mT)).sub_(w.cin * (dV @ S.mT))
    dbeta = (dR * (E - C @ U)).sum(-1)
    return dQ, dK, dV, dbeta, dS[0]


def _window(x: Clean, reset: Tensor, scale: float, L: int) -> _Window:
    g = x.q.new_zeros(1).expand(*x.q.shape[:2], 1) if x.g is None else x.g
    dtype = x.state.dtype
    g = split(g.to(dtype), L).transpose(0, 1)
    D, cin, cout, dec = decay(g, split(reset, L).transpose(0, 1))
    q, k, v, beta = (_split(y.to(dtype), L) for y in (x.q, x.k, x.v, x.beta.unsqueeze(-1)))
    return _Window(
        scale * q, k, v, beta, D, cin.unsqueeze(-1), cout.unsqueeze(-1), dec[..., None, None]
    )


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
    """Return `x [B, T, H, D]` as chunks `[N, B, H, L, D]`."""
    return split(x, L).permute(1, 0, 3, 2, 4).contiguous()


def _join(x: Tensor, T: int) -> Tensor:
    """Return chunks `[N, B, H, L, ...]` as `[B, T, H, ...]`."""
    return join(x.movedim(0, 1).transpose(2, 3), T)
