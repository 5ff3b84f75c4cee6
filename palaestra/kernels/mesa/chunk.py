"""Mesa in chunks, both directions written by hand in matrix products: the path on CPU.

The solves of all tokens run together: with the iterates X as rows, one product A(X) of a chunk is

    (cin X) Hkk + ((X K^T) * D_b) K + lamb * X        D_b = D beta^T, Hkk entering the chunk

Chunks of all rows and heads are one batch of G = N B H, chunk first, so that the states before and
after the chunks are slices of one tensor.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from palaestra.kernels._common.chunk import decay, split
from palaestra.kernels._common.runtime import asking_is_free
from palaestra.kernels.mesa.solve import (
    Matvec,
    Solver,
    cholesky,
    conjugate_gradient,
    relative_residual,
)
from palaestra.kernels.mesa.state import MesaResiduals

_BLOCK = 131072
"""Numbers of one input in a block of rows on CPU."""

_TILE = 32768
"""Numbers of one right side that are solved together on CPU: they stay in a core's cache."""


class _Window(NamedTuple):
    """A window in chunks."""

    k: Tensor
    """`[G, L, K]`."""
    k_out: Tensor
    """What is left of beta k after the chunk, of k's shape."""
    v: Tensor
    """`[G, L, V]`."""
    beta: Tensor
    """`[G, L, 1]`."""
    hkk: Tensor
    """`[N + 1, B, H, K, K]`, the states around the chunks."""
    hkv: Tensor
    """`[N + 1, B, H, K, V]`."""
    lamb: Tensor
    """`[G, 1, K]`."""
    D: Tensor
    """`[G, L, L]`, as `cin`, `cout` and `dec` in `_common.chunk`."""
    D_b: Tensor
    """D times the weights of its columns."""
    cin: Tensor
    """`[G, L, 1]`."""
    cout: Tensor
    """`[G, L, 1]`."""
    dec: Tensor
    """`[N, B, H]`."""

    def matrix(self) -> tuple[Tensor, ...]:
        """Return what `_product` takes."""
        return self.D_b, self.cin, self.lamb, self.k, _flat(self.hkk[:-1])

    def solve(self, b: Tensor, solver: Solver) -> Tensor:
        """Return x with A x = b for every token, `[G, L, K]`."""
        if solver.name == "cholesky":
            return cholesky(self._dense(), b)
        hkk = _flat(self.hkk[:-1]).diagonal(dim1=1, dim2=2).unsqueeze(1)
        diagonal = (self.cin * hkk).baddbmm_(self.D_b, self.k * self.k).add_(self.lamb)
        x, size = b / diagonal, _tile(b)
        tiles = (part.split(size) for part in (x, b, *self.matrix()))
        for x_i, b_i, *A_i in zip(*tiles, strict=True):
            conjugate_gradient(_product(*A_i), b_i, x_i, solver.num_steps, solver.tol)
        return x

    def residual(self, b: Tensor, x: Tensor) -> Tensor:
        """Return |b - A x| / |b| of every token, `[G, L]`."""
        return relative_residual(_product(*self.matrix()), b, x)

    def _dense(self) -> Tensor:
        """Return A of every token, `[G, L, K, K]`."""
        kk = (self.k.unsqueeze(-1) * self.k.unsqueeze(-2)).flatten(2)
        A = torch.bmm(self.D_b, kk) + self.cin * _flat(self.hkk[:-1]).flatten(1).unsqueeze(1)
        return A.unflatten(2, (self.k.shape[-1], -1)) + torch.diag_embed(self.lamb)


class MesaChunk(torch.autograd.Function):
    """`apply(q, k, v, g, beta, lamb, reset, hkk, hkv, solver, L, residuals) -> o, hkk_T, hkv_T`.

    As `chunk_mesa`, all given but `residuals`, and of the state's type.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        g: Tensor,
        beta: Tensor,
        lamb: Tensor,
        reset: Tensor,
        hkk: Tensor,
        hkv: Tensor,
        solver: Solver,
        chunk_size: int,
        residuals: MesaResiduals | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return outputs and the final state's sums."""
        L, saved = chunk_size, []
        o, hkk_T, hkv_T = torch.empty_like(v), torch.empty_like(hkk), torch.empty_like(hkv)
        if residuals is not None:
            residuals.forward = torch.empty_like(g)
        for rows in _blocks(q):
            w = _window(
                k[rows], v[rows], g[rows], beta[rows], lamb, reset[rows], hkk[rows], hkv[rows], L
            )
            b = _chunks(q[rows], L)
            x = w.solve(b, solver)
            scores = torch.bmm(x, w.k.mT).mul_(w.D)
            out = torch.bmm(scores * w.beta.mT, w.v).baddbmm_(w.cin * x, _flat(w.hkv[:-1]))
            o[rows], hkk_T[rows], hkv_T[rows] = _tokens(out, g[rows]), w.hkk[-1], w.hkv[-1]
            if residuals is not None and residuals.forward is not None:
                residuals.forward[rows] = _tokens(w.residual(b, x), g[rows])
            saved += [*w, x, scores]
        ctx.save_for_backward(k, v, g, beta, lamb, reset, *saved)
        ctx.solver, ctx.L, ctx.residuals = solver, L, residuals
        return o, hkk_T, hkv_T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Tensor, dhkk: Tensor, dhkv: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of all arguments."""
        k, v, g, beta, lamb, reset, *saved = ctx.saved_tensors
        L, n, residuals = ctx.L, len(_Window._fields), ctx.residuals
        dq, dk, dv, dg, dbeta = (torch.empty_like(x) for x in (k, k, v, g, beta))
        dhkk_0, dhkv_0 = torch.empty_like(dhkk), torch.empty_like(dhkv)
        dlamb = torch.zeros_like(lamb)
        if residuals is not None:
            residuals.backward = torch.empty_like(g)
        for rows in _blocks(k):
            w, (x, scores), saved = _Window(*saved[:n]), saved[n:][:2], saved[n + 2 :]
            do_b = _chunks(do[rows], L)
            dP = torch.bmm(do_b, w.v.mT).mul_(w.D)
            b = torch.bmm(dP * w.beta.mT, w.k).baddbmm_(w.cin * do_b, _flat(w.hkv[:-1]).mT)
            y = w.solve(b, ctx.solver)
            if residuals is not None:
                residuals.backward[rows] = _tokens(w.residual(b, y), g[rows])
            d = _adjoint(w, do_b, dhkk[rows], dhkv[rows], b, x, y, scores, dP)
            tokens = (_tokens(z, g[rows]) for z in (y, d.k, d.v, d.beta.squeeze(-1)))
            dq[rows], dk[rows], dv[rows], dbeta[rows] = tokens
            dg[rows] = _decay_backward(d.flow, d.last, reset[rows], L)
            dhkk_0[rows], dhkv_0[rows] = d.hkk, d.hkv
            dlamb += d.lamb.unflatten(0, (-1, len(lamb))).sum(0)
        return dq, dk, dv, dg, dbeta, dlamb, None, dhkk_0, dhkv_0, None, None, None


class _Gradients(NamedTuple):
    """What the backward direction finds in a window, but for dq = y."""

    k: Tensor
    """`[G, L, K]`."""
    v: Tensor
    """`[G, L, V]`."""
    beta: Tensor
    """`[G, L, 1]`."""
    flow: Tensor
    """What a token reads less what it writes, `[G, L, 1]`."""
    last: Tensor
    """The flow after the window, `[B, H]`."""
    lamb: Tensor
    """`[G, K]`."""
    hkk: Tensor
    """`[B, H, K, K]`, of the state before the window, as `hkv`."""
    hkv: Tensor
    """`[B, H, K, V]`."""


def _adjoint(
    w: _Window,
    do: Tensor,
    dhkk: Tensor,
    dhkv: Tensor,
    b: Tensor,
    x: Tensor,
    y: Tensor,
    xk: Tensor,
    dP: Tensor,
) -> _Gradients:
    """Go back through a window with x = A^-1 q and y = A^-1 b.

    `xk` is D * (X K^T), `dP` is D * (dO V^T). o = read(x, v) and, since dA = -y x^T,
    <A, dA> = -read(y, k) x: two linear attentions.
    """
    P, P_2 = xk * w.beta.mT, torch.bmm(y, w.k.mT).mul_(w.D_b)
    cin_x = w.cin * x
    dhkvs = _carry(dhkv, w.dec, torch.bmm(cin_x.mT, do), backward=True)
    dhkks = _carry(dhkk, w.dec, torch.bmm((w.cin * y).mT, x).neg_(), backward=True)
    dhkv_out, dhkk_out = _flat(dhkvs[1:]), _flat(dhkks[1:])
    dkb = torch.bmm(w.v, dhkv_out.mT).baddbmm_(w.k, dhkk_out.mT).mul_(w.cout)
    dkb.baddbmm_(dP.mT, x).baddbmm_(xk.mT, y, alpha=-1)
    dv = torch.bmm(P.mT, do).baddbmm_(w.k_out, dhkv_out)
    dk = torch.bmm(w.k_out, dhkk_out).baddbmm_(P_2.mT, x, alpha=-1).addcmul_(w.beta, dkb)
    dbeta = (w.k * dkb).sum(-1, keepdim=True)
    hkk_x = torch.bmm(P, w.k).baddbmm_(cin_x, _flat(w.hkk[:-1]))
    return _Gradients(
        k=dk,
        v=dv,
        beta=dbeta,
        flow=(x * b).addcmul_(y, hkk_x, value=-1).sum(-1, keepdim=True) - w.beta * dbeta,
        last=(dhkk * w.hkk[-1]).sum((-2, -1)) + (dhkv * w.hkv[-1]).sum((-2, -1)),
        lamb=(x * y).sum(1).neg_(),
        hkk=dhkks[0],
        hkv=dhkvs[0],
    )


def _blocks(q: Tensor) -> list[slice]:
    """Return slices of rows; all rows at once elsewhere than on CPU."""
    size = max(1, _BLOCK // q[0].numel()) if asking_is_free(q) else max(1, len(q))
    return [slice(b, b + size) for b in range(0, len(q), size)]


def _window(
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    lamb: Tensor,
    reset: Tensor,
    hkk: Tensor,
    hkv: Tensor,
    L: int,
) -> _Window:
    left = decay(split(g, L).transpose(0, 1), split(reset, L).transpose(0, 1))
    cin, cout = _flat(left.cin).unsqueeze(-1), _flat(left.cout).unsqueeze(-1)
    k, v, beta, D = _chunks(k, L), _chunks(v, L), _chunks(beta.unsqueeze(-1), L), _flat(left.D)
    k_out = cout * beta * k
    return _Window(
        k=k,
        k_out=k_out,
        v=v,
        beta=beta,
        hkk=_carry(hkk, left.dec, torch.bmm(k_out.mT, k)),
        hkv=_carry(hkv, left.dec, torch.bmm(k_out.mT, v)),
        lamb=lamb.unsqueeze(1).repeat(len(k) // len(lamb), 1, 1),
        D=D,
        D_b=D * beta.mT,
        cin=cin,
        cout=cout,
        dec=left.dec,
    )


def _product(D_b: Tensor, cin: Tensor, lamb: Tensor, k: Tensor, hkk: Tensor) -> Matvec:
    """Return the function x -> A x of every token, on `[G, L, K]`; `D_b` is D times beta."""
    k_t = k.mT

    def product(x: Tensor) -> Tensor:
        scores = torch.bmm(x, k_t).mul_(D_b)
        return (lamb * x).baddbmm_(scores, k).baddbmm_(cin * x, hkk)

    return product


def _tile(b: Tensor) -> int:
    """Return how many chunks are solved together; fewer also end sooner."""
    return max(1, _TILE // b[0].numel()) if asking_is_free(b) else len(b)


def _carry(first: Tensor, dec: Tensor, new: Tensor, *, backward: bool = False) -> Tensor:
    """Return all S of S <- dec S + new, `[N + 1, B, H, K, V]`.

    Args:
      first: `[B, H, K, V]`, S_0, or S_N where `backward`.
      dec: `[N, B, H]`.
      new: `[N B H, K, V]`.
      backward: whether to go from the last chunk to the first.
    """
    dec, new = dec[..., None, None], new.unflatten(0, dec.shape)
    states = new.new_empty(len(new) + 1, *first.shape)
    states[-1 if backward else 0] = first
    for n in range(len(new)):
        n, source, target = (-1 - n, -1 - n, -2 - n) if backward else (n, n, n + 1)
        torch.addcmul(new[n], dec[n], states[source], out=states[target])
    return states


def _decay_backward(flow: Tensor, dlast: Tensor, reset: Tensor, L: int) -> Tensor:
    """Return dg `[B, T, H]`: the flow from each token to the end of its episode.

    Args:
      flow: `[G, L, 1]`.
      dlast: `[B, H]`, the flow after the window.
      reset: bool `[B, T]`.
      L: chunk length.
    """
    (B, T), H = reset.shape, dlast.shape[1]
    first = split(reset, L).transpose(0, 1)  # [N, B, L]
    seg = first.cumsum(2)
    later = (seg.unsqueeze(3) == seg.unsqueeze(2)).tril().to(flow.dtype)  # [N, B, L, L]
    lasts = (seg == seg[..., -1:]).unsqueeze(2).to(flow.dtype)  # [N, B, 1, L]
    rows = list((flow.view(-1, B, H, L) @ later).unbind())
    for n in range(len(rows) - 1, -1, -1):
        rows[n] = rows[n] + lasts[n] * dlast.unsqueeze(2)
        dlast = rows[n][..., 0].masked_fill(first[n, :, :1], 0)
    dg = torch.stack(rows).permute(1, 0, 3, 2).flatten(1, 2)[:, :T]
    return dg.masked_fill(reset.unsqueeze(-1), 0)


def _chunks(x: Tensor, L: int) -> Tensor:
    """Return `x [B, T, H, width]` as `[G, L, width]`."""
    return split(x, L).permute(1, 0, 3, 2, 4).contiguous().flatten(0, 2)


def _tokens(x: Tensor, like: Tensor) -> Tensor:
    """Return `x [G, L, ...]` as `[B, T, H, ...]`, these from `like`."""
    B, T, H = like.shape[:3]
    x = x.unflatten(0, (-1, B, H)).transpose(0, 1).transpose(2, 3)
    return x.flatten(1, 2)[:, :T]


def _flat(x: Tensor) -> Tensor:
    """Return `x [N, B, H, ...]` as `[G, ...]`."""
    return x.flatten(0, 2)
