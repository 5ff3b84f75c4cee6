"""Inverse of unit lower triangular matrices."""

from typing import Any

import torch
from torch import Tensor


def inverse_unit_lower(A: Tensor) -> Tensor:
    """Return `(I + A)^-1` of strictly lower triangular `A [..., L, L]`.

    Only the entries below the diagonal are read and receive a gradient.
    """
    X: Tensor = _Inverse.apply(A)
    return X


class _Inverse(torch.autograd.Function):
    """X = (I + A)^-1;  dA = -tril(X^T dX X^T, -1)."""

    @staticmethod
    def forward(ctx: Any, A: Tensor) -> Tensor:
        identity = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
        X = torch.linalg.solve_triangular(A, identity.expand_as(A), upper=False, unitriangular=True)
        ctx.save_for_backward(X)
        return X

    @staticmethod
    def backward(ctx: Any, dX: Tensor) -> Tensor:
        (X,) = ctx.saved_tensors
        return -(X.mT @ dX @ X.mT).tril(-1)
