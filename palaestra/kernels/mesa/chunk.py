"""Mesa in chunks, both directions written by hand in matrix products: the path on CPU.

The solves of all tokens run together: with the iterates X as rows, one product A(X) of a chunk is

    (cin X) Hkk + ((X K^T) * D_b) K + lamb * X        D_b = D beta^T, Hkk entering the chunk

Chunks of all rows and heads are one batch of G = N B H, chunk first, so that the states before and
after the chunks are slices of one tensor.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from palaestra.kernels._common.autograd import by_hand
from palaestra.kernels._common.chunk import Decay, decay, join, split
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
"""Numbers of one input that are worked through together on CPU: many enough for the calls to cost
little, few enough to stay in cache."""


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
        hkk = _flat(self.hkk[:-1]).diagonal(dim1=1, dim2=2).unsqueeze(1).contiguous()
        diagonal = (self.cin * hkk).baddbmm_(self.D_b, self.k * self.k).add_(self.lamb)
        x, size = b / diagonal, _block(b)
        blocks = (part.split(size) for part in (x, b, *self.matrix()))
        for x_i, b_i, *A_i in zip(*blocks, strict=True):
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
        T, L, saved = q.shape[1], chunk_size, []
        o, hkk_T, hkv_T = _room(v, L), torch.empty_like(hkk), torch.empty_like(hkv)
        residual = _room(g, L) if residuals is not None else None
        left = decay(split(g, L).transpose(0, 1), split(reset, L).transpose(0, 1))
        for rows in _blocks(q):
            here = Decay(*(x[:, rows] for x in left))
            w = _window(k[rows], v[rows], beta[rows], lamb, here, hkk[rows], hkv[rows])
            b = _chunks(q[rows], L)
            x = w.solve(b, solver)
            scores = torch.bmm(x, w.k.mT).mul_(w.D)
            out = torch.bmm(scores * w.beta.mT, w.v).baddbmm_(w.cin * x, _flat(w.hkv[:-1]))
            _put(out, o[rows])
            hkk_T[rows], hkv_T[rows] = w.hkk[-1], w.hkv[-1]
            if residual is not None:
                _put(w.residual(b, x), residual[rows])
            saved += [*w, x, scores]
        if residuals is not None and residual is not None:
            residuals.forward = residual[:, :T]
        ctx.save_for_backward(k, v, g, beta, lamb, reset, *saved)
        ctx.solver, ctx.L, ctx.residuals = solver, L, residuals
        return o[:, :T], hkk_T, hkv_T

    @staticmethod
    @by_hand
    def backward(ctx: Any, do: Tensor, dhkk: Tensor, dhkv: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of all arguments."""
        k, v, g, beta, lamb, reset, *saved = ctx.saved_tensors
        T, L, n, residuals = k.shape[1], ctx.L, len(_Window._fields), ctx.residuals
        dq, dk, dv, dbeta, flow = (_room(x, L) for x in (k, k, v, beta, g))
        dhkk_0, dhkv_0 = torch.empty_like(dhkk), torch.empty_like(dhkv)
        last, dlamb = torch.empty_like(dhkk[..., 0, 0]), torch.zeros_like(lamb)
        residual = _room(g, L) if residuals is not None else None
        for rows in _blocks(k):
            w, (x, scores), saved = _Window(*saved[:n]), saved[n:][:2], saved[n + 2 :]
            do_b = _chunks(do[rows], L)
            dP = torch.bmm(do_b, w.v.mT).mul_(w.D)
            b = torch.bmm(dP * w.beta.mT, w.k).baddbmm_(w.cin * do_b, _flat(w.hkv[:-1]).mT)
            y = w.solve(b, ctx.solver)
            if residual is not None:
                _put(w.residual(b, y), residual[rows])
            d = _adjoint(w, do_b, dhkk[rows], dhkv[rows], b, x, y, scores, dP)
            for z, dz in ((y, dq), (d.k, dk), (d.v, dv), (d.beta, dbeta), (d.flow, flow)):
                _put(z, dz[rows])
            last[rows], dhkk_0[rows], dhkv_0[rows] = d.last, d.hkk, d.hkv
            dlamb += d.lamb.unflatten(0, (-1, len(lamb))).sum(0)
        if residuals is not None and residual is not None:
            residuals.backward = residual[:, :T]
        dg = _decay_backward(flow, last, reset, L)
        dq, dk, dv, dbeta = (dz[:, :T] for dz in (dq, dk, dv, dbeta))
        return dq, dk, dv, dg, dbeta, dlamb, None, dhkk_0, dhkv_0, None, None, None


class _Gradients(NamedTuple):
    """What the backward direction finds in a window, but for dq = y."""

    k: Tensor
    """`[G, L, K]`."""
    v: Tensor
    """`[G, L, V]`."""
    beta: Tensor
    """`[G, L]`."""
    flow: Tensor
    """What a token reads less what it writes, `[G, L]`."""
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
    dhkvs = _carry(dhkv, w.dec, cin_x, do, backward=True)
    dhkks = _carry(dhkk, w.dec, -w.cin * y, x, backward=True)
    dhkv_out, dhkk_out = _flat(dhkvs[1:]), _flat(dhkks[1:])
    dkb = torch.bmm(w.v, dhkv_out.mT).baddbmm_(w.k, dhkk_out.mT).mul_(w.cout)
    dkb.baddbmm_(dP.mT, x).baddbmm_(xk.mT, y, alpha=-1)
    dv = torch.bmm(P.mT, do).baddbmm_(w.k_out, dhkv_out)
    dk = torch.bmm(w.k_out, dhkk_out).baddbmm_(P_2.mT, x, alpha=-1).addcmul_(w.beta, dkb)
    dbeta = (w.k * dkb).sum(-1)
    hkk_x = torch.bmm(P, w.k).baddbmm_(cin_x, _flat(w.hkk[:-1]))
    reads = (x * b).addcmul_(y, hkk_x, value=-1).sum(-1)
    return _Gradients(
        k=dk,
        v=dv,
        beta=dbeta,
        flow=reads - w.beta.squeeze(-1) * dbeta,
        last=(dhkk * w.hkk[-1]).sum((-2, -1)) + (dhkv * w.hkv[-1]).sum((-2, -1)),
        lamb=(x * y).sum(1).neg_(),
        hkk=dhkks[0],
        hkv=dhkvs[0],
    )


def _blocks(q: Tensor) -> list[slice]:
    """Return slices of rows, one block each."""
    size = _block(q)
    return [slice(b, b + size) for b in range(0, len(q), size)]


def _block(x: Tensor) -> int:
    """Return how many of the first axis are worked through together: all unless on CPU."""
    return max(1, _BLOCK // x[0].numel() if asking_is_free(x) else len(x))


def _window(
    k: Tensor, v: Tensor, beta: Tensor, lamb: Tensor, left: Decay, hkk: Tensor, hkv: Tensor
) -> _Window:
    """Return a window in chunks; `left` with chunks before rows, `[N, B, H, ...]`."""
    L = left.D.shape[-1]
    cin, cout, D = _flat(left.cin).unsqueeze(-1), _flat(left.cout).unsqueeze(-1), _flat(left.D)
    k, v, beta = _chunks(k, L), _chunks(v, L), _chunks(beta.unsqueeze(-1), L)
    k_out = k * (cout * beta)
    return _Window(
        k=k,
        k_out=k_out,
        v=v,
        beta=beta,
        hkk=_carry(hkk, left.dec, k_out, k),
        hkv=_carry(hkv, left.dec, k_out, v),
        lamb=lamb.unsqueeze(1).repeat(len(k) // len(lamb), 1, 1),
        D=D,
        D_b=D * beta.mT,
        cin=cin,
        cout=cout,
        dec=left.dec,
    )


def _product(D_b: Tensor, cin: Tensor, lamb: Tensor, k: Tensor, hkk: Tensor) -> Matvec:
    """Return the function x -> A x of every token, on `[G, L, K]`; `D_b` is D times beta."""
    k_t, scores, carried, Ax = k.mT, torch.empty_like(D_b), torch.empty_like(k), torch.empty_like(k)

    def product(x: Tensor) -> Tensor:
        torch.bmm(x, k_t, out=scores).mul_(D_b)
        torch.mul(cin, x, out=carried)
        return torch.mul(lamb, x, out=Ax).baddbmm_(scores, k).baddbmm_(carried, hkk)

    return product


def _carry(first: Tensor, dec: Tensor, x: Tensor, y: Tensor, *, backward: bool = False) -> Tensor:
    """Return all S of S <- dec S + X^T Y, `[N + 1, B, H, K, V]`.

    Args:
      first: `[B, H, K, V]`, S_0, or S_N where `backward`.
      dec: `[N, B, H]`.
      x: `[G, L, K]`.
      y: `[G, L, V]`.
      backward: whether to go from the last chunk to the first.
    """
    states = first.new_empty(len(dec) + 1, *first.shape)
    new, source = (states[:-1], -1) if backward else (states[1:], 0)
    states[source] = first
    torch.bmm(x.mT, y, out=new.flatten(0, 2))
    steps = list(zip(dec[..., None, None].unbind(), new.unbind(), strict=True))
    S = states[source]
    for dec_n, new_n in reversed(steps) if backward else steps:
        S = new_n.addcmul_(dec_n, S)
    return states


def _decay_backward(flow: Tensor, dlast: Tensor, reset: Tensor, L: int) -> Tensor:
    """Return dg `[B, T, H]`: the flow from each token to the end of its episode.

    Args:
      flow: `[B, N L, H]`.
      dlast: `[B, H]`, the flow after the window.
      reset: bool `[B, T]`.
      L: chunk length.
    """
    first = split(reset, L)  # [B, N, L]
    seg = first.cumsum(2)
    later = (seg.unsqueeze(3) == seg.unsqueeze(2)).tril().to(flow.dtype)  # [B, N, L, L]
    lasts = (seg == seg[..., -1:]).unsqueeze(3).to(flow.dtype)  # [B, N, L, 1]
    dg = later.mT @ flow.unflatten(1, (-1, L))  # [B, N, L, H]
    for n in range(dg.shape[1] - 1, -1, -1):
        dg[:, n].addcmul_(lasts[:, n], dlast.unsqueeze(1))
        dlast = dg[:, n, 0].masked_fill(first[:, n, :1], 0)
    return join(dg, reset.shape[1]).masked_fill(reset.unsqueeze(-1), 0)


def _chunks(x: Tensor, L: int) -> Tensor:
    """Return `x [B, T, H, width]` as `[G, L, width]`."""
    return split(x, L).permute(1, 0, 3, 2, 4).contiguous().flatten(0, 2)


def _room(like: Tensor, L: int) -> Tensor:
    """Return space for `like [B, T, H, ...]` with T filled up to whole chunks."""
    B, T, *rest = like.shape
    return like.new_empty(B, T + -T % L, *rest)


def _put(x: Tensor, tokens: Tensor) -> None:
    """Write `x [G, L, ...]` into `tokens [B, N L, H, ...]`."""
    B, _, H = tokens.shape[:3]
    x = x.unflatten(0, (-1, B, H)).transpose(0, 1).transpose(2, 3)
    tokens.view(x.shape).copy_(x)


def _flat(x: Tensor) -> Tensor:
    """Return `x [N, B, H, ...]` as `[G, ...]`."""
    return x.flatten(0, 2)
