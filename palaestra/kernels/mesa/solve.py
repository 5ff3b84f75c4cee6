"""Solves A x = b for positive definite A, many at once."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from palaestra.kernels._common.runtime import asking_is_free

Matvec = Callable[[Tensor], Tensor]


class Solver(NamedTuple):
    """How the linear systems are solved."""

    name: str
    """"cg" or "cholesky"."""
    num_steps: int
    """Steps of conjugate gradients."""
    tol: float
    """A system is left as it is once |r| <= tol |b|."""


def conjugate_gradient(matvec: Matvec, b: Tensor, x0: Tensor, num_steps: int, tol: float) -> Tensor:
    """Return x with A x = b to relative residual `tol`, or what `num_steps` steps give.

    A row with |r| <= tol |b| keeps its x from then on, so that its result depends on no other row.

    Args:
      matvec: p -> A p, row by row; the next call may overwrite the result.
      b: right sides `[..., K]`.
      x0: first guesses, of b's shape; overwritten with the result.
      num_steps: steps; K of them are exact but for rounding.
      tol: relative residual.
    """
    x, r = x0, b - matvec(x0)
    p, d, stop, zero = r.clone(), _dot(r, r), tol**2 * _dot(b, b), b.new_zeros(())
    for _ in range(num_steps):
        live = d > stop
        if asking_is_free(live) and not live.any():
            break
        Ap = matvec(p)
        pAp = _dot(p, Ap)
        # Rounding can make pAp zero or negative where r is tiny beside x.
        alpha = torch.where(live & (pAp > 0), d / pAp, zero)
        x.addcmul_(alpha, p)
        r.addcmul_(alpha, Ap, value=-1)
        d_next = _dot(r, r)
        torch.addcmul(r, p, torch.where(live, d_next / d, zero), out=p)
        d = d_next
    return x


def cholesky(A: Tensor, b: Tensor) -> Tensor:
    """Return x with A x = b from `A [..., K, K]` and `b [..., K]`."""
    return torch.cholesky_solve(b.unsqueeze(-1), torch.linalg.cholesky_ex(A).L).squeeze(-1)


def relative_residual(matvec: Matvec, b: Tensor, x: Tensor) -> Tensor:
    """Return |b - A x| / |b| without the last axis; 0 where b is 0."""
    r = (b - matvec(x)).norm(dim=-1)
    return r / b.norm(dim=-1).clamp(min=torch.finfo(b.dtype).tiny)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(-1, keepdim=True)
