"""Mesa in chunks, both directions written by hand in matrix products: the path on CPU.

The solves of all tokens run together: with the iterates X as rows, one product A(X) of a chunk is

    (cin X) Hkk + ((X Kb^T) * D) K + lamb * X        Kb = beta K, Hkk entering the chunk

Chunks of all rows and heads are one batch of G = N B H, chunk first, so that the states before and
after the chunks are slices of one tensor.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from palaestra.kernels._common.chunk import decay, split
from palaestra.kernels.mesa.solve import (
    Matvec,
    Solver,
    asking_is_free,
    cholesky,
    conjugate_gradient,
    relative_residual,
)
from palaestra.kernels.mesa.state import MesaResiduals, MesaState

_TILE = 32768
"""Numbers of one right side that are solved together on CPU: they stay in a core's cache."""


def chunk(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    lamb: Tensor,
    reset: Tensor,
    state: MesaState,
    solver: Solver,
    chunk_size: int,
    residuals: MesaResiduals | None = None,
) -> tuple[Tensor, MesaState]:
    """Read a window; arguments as `chunk_mesa`, all given and of the state's type."""
    o, hkk, hkv = _Chunk.apply(
        q, k, v, g, beta, lamb, reset, state.hkk, state.hkv, solver, chunk_size, residuals
    )
    return o, MesaState(hkk, hkv)


class _Window(NamedTuple):
    """A window in chunks."""

    k: Tensor
    """`[G, L, K]`."""
    kb: Tensor
    """beta k, of k's shape."""
    v: Tensor
    """`[G, L, V]`."""
    hkk: Tensor
    """`[N + 1, B, H, K, K]`, the states around the chunks."""
    hkv: Tensor
    """`[N + 1, B, H, K, V]`."""
    lamb: Tensor
    """`[G, 1, K]`."""
    D: Tensor
    """`[G, L, L]`, as `cin`, `cout` and `dec` in `_common.chunk`."""
    cin: Tensor
    """`[G, L, 1]`."""
    cout: Tensor
    """`[G, L, 1]`."""
    dec: Tensor
    """`[N, B, H]`."""

    def matrix(self) -> tuple[Tensor, ...]:
        """Return what `_product` takes."""
        return self.D, self.cin, self.lamb, self.kb.mT, self.k, _flat(self.hkk[:-1])

    def solve(self, b: Tensor, solver: Solver) -> Tensor:
        """Return x with A x = b for every token, `[G, L, K]`."""
        if solver.name == "cholesky":
            return cholesky(self._dense(), b)
        hkk = _flat(self.hkk[:-1]).diagonal(dim1=1, dim2=2).unsqueeze(1)
        diagonal = (self.cin * hkk).baddbmm_(self.D, self.kb * self.k).add_(self.lamb)
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
        kk = (self.kb.unsqueeze(-1) * self.k.unsqueeze(-2)).flatten(2)
        A = torch.bmm(self.D, kk) + self.cin * _flat(self.hkk[:-1]).flatten(1).unsqueeze(1)
        return A.unflatten(2, (self.k.shape[-1], -1)) + torch.diag_embed(self.lamb)


class _Chunk(torch.autograd.Function):
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
        w = _window(k, v, g, beta, lamb, reset, hkk, hkv, chunk_size)
        b = _chunks(q, chunk_size)
        x = w.solve(b, solver)
        scores = torch.bmm(x, w.kb.mT).mul_(w.D)
        o = torch.bmm(scores, w.v).baddbmm_(w.cin * x, _flat(w.hkv[:-1]))
        if residuals is not None:
            residuals.forward = _tokens(w.residual(b, x), q)
        ctx.save_for_backward(k, v, g, beta, lamb, reset, hkk, hkv, x)
        ctx.solver, ctx.chunk_size, ctx.residuals = solver, chunk_size, residuals
        return _tokens(o, q), w.hkk[-1].clone(), w.hkv[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Tensor, dhkk: Tensor, dhkv: Tensor) -> tuple[Tensor | None, ...]:
        k, v, g, beta, lamb, reset, hkk, hkv, x = ctx.saved_tensors
        L, like = ctx.chunk_size, k
        w = _window(k, v, g, beta, lamb, reset, hkk, hkv, L)
        do, beta = _chunks(do, L), _chunks(beta.unsqueeze(-1), L)
        dP_1 = torch.bmm(do, w.v.mT).mul_(w.D)
        b = torch.bmm(dP_1, w.kb).baddbmm_(w.cin * do, _flat(w.hkv[:-1]).mT)
        y = w.solve(b, ctx.solver)
        if ctx.residuals is not None:
            ctx.residuals.backward = _tokens(w.residual(b, y), like)

        # o = read(x, v) and, since dA = -y x^T, <A, dA> = -read(y, k) x: two linear attentions.
        P_1, P_2 = torch.bmm(x, w.kb.mT).mul_(w.D), torch.bmm(y, w.kb.mT).mul_(w.D)
        dP_2 = torch.bmm(x, w.k.mT).mul_(w.D).neg_()
        cin_x = w.cin * x
        dhkvs = _carry(dhkv, w.dec, torch.bmm(cin_x.mT, do), backward=True)
        dhkks = _carry(dhkk, w.dec, torch.bmm((w.cin * y).mT, x).neg_(), backward=True)
        dhkv_out, dhkk_out, kb_out = _flat(dhkvs[1:]), _flat(dhkks[1:]), w.cout * w.kb
        dkb = torch.bmm(w.v, dhkv_out.mT).baddbmm_(w.k, dhkk_out.mT).mul_(w.cout)
        dkb.baddbmm_(dP_1.mT, x).baddbmm_(dP_2.mT, y)
        dv = torch.bmm(P_1.mT, do).baddbmm_(kb_out, dhkv_out)
        dk = torch.bmm(kb_out, dhkk_out).baddbmm_(P_2.mT, x, alpha=-1).addcmul_(beta, dkb)
        dbeta = (w.k * dkb).sum(-1, keepdim=True)
        # What a token reads less what it writes: what all later ones sum to is the decay's.
        hkk_x = torch.bmm(P_1, w.k).baddbmm_(cin_x, _flat(w.hkk[:-1]))
        flow = (x * b).addcmul_(y, hkk_x, value=-1).sum(-1, keepdim=True) - beta * dbeta
        dlast = (dhkk * w.hkk[-1]).sum((-2, -1)) + (dhkv * w.hkv[-1]).sum((-2, -1))
        dlamb = (x * y).sum(1).unflatten(0, (-1, len(lamb))).sum(0).neg_()
        return (
            _tokens(y, like),
            _tokens(dk, like),
            _tokens(dv, like),
            _decay_backward(flow, dlast, reset, L),
            _tokens(dbeta.squeeze(-1), like),
            dlamb,
            None,
            dhkks[0],
            dhkvs[0],
            None,
            None,
            None,
        )


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
    assert left.D is not None
    cin, cout = _flat(left.cin).unsqueeze(-1), _flat(left.cout).unsqueeze(-1)
    k, v, kb = _chunks(k, L), _chunks(v, L), _chunks(beta.unsqueeze(-1) * k, L)
    write = (cout * kb).mT
    return _Window(
        k=k,
        kb=kb,
        v=v,
        hkk=_carry(hkk, left.dec, torch.bmm(write, k)),
        hkv=_carry(hkv, left.dec, torch.bmm(write, v)),
        lamb=lamb.unsqueeze(1).repeat(len(k) // len(lamb), 1, 1),
        D=_flat(left.D),
        cin=cin,
        cout=cout,
        dec=left.dec,
    )


def _product(D: Tensor, cin: Tensor, lamb: Tensor, kb: Tensor, k: Tensor, hkk: Tensor) -> Matvec:
    """Return the function x -> A x of every token, on `[G, L, K]`."""

    def product(x: Tensor) -> Tensor:
        scores = torch.bmm(x, kb).mul_(D)
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
        states[target] = torch.addcmul(new[n], dec[n], states[source])
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
