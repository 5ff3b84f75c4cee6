"""Mesa in plain PyTorch: the token loop, which is the specification, and one step of it."""

from typing import Any

import torch
from torch import Tensor

from palaestra.kernels._common.matrix import carried
from palaestra.kernels._common.runtime import no_autocast
from palaestra.kernels.mesa.solve import Solver, cholesky, conjugate_gradient
from palaestra.kernels.mesa.state import MesaState


def recurrent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    lamb: Tensor,
    reset: Tensor,
    state: MesaState,
    solver: Solver,
) -> tuple[Tensor, MesaState]:
    """Read a window step by step; arguments as `recurrent_mesa`, all given."""
    o = []
    for t in range(q.shape[1]):
        q_t, k_t, v_t, g_t, beta_t = q[:, t], k[:, t], v[:, t], g[:, t], beta[:, t]
        o_t, state = step(q_t, k_t, v_t, g_t, beta_t, lamb, reset[:, t], state, solver)
        o.append(o_t)
    return torch.stack(o, 1), state


def step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    lamb: Tensor,
    reset: Tensor,
    state: MesaState,
    solver: Solver,
) -> tuple[Tensor, MesaState]:
    """Read one step; arguments as `step_mesa`, all given and of the state's type."""
    bk = (beta.unsqueeze(-1) * k).unsqueeze(-1)  # (B, H, K, 1)
    hkk, hkv = carried(g, reset, state.hkk, state.hkv)
    hkk, hkv = torch.addcmul(hkk, bk, k.unsqueeze(-2)), torch.addcmul(hkv, bk, v.unsqueeze(-2))
    x: Tensor = _Solve.apply(hkk + torch.diag_embed(lamb), q, solver)
    return (x.unsqueeze(-2) @ hkv).squeeze(-2), MesaState(hkk, hkv)


class _Solve(torch.autograd.Function):
    """x = A^-1 b;  db = y = A^-1 dx,  dA = -y x^T, both solved alike."""

    @staticmethod
    def forward(ctx: Any, A: Tensor, b: Tensor, solver: Solver) -> Tensor:
        x = _solve(A, b, solver)
        ctx.save_for_backward(A, x)
        ctx.solver = solver
        return x

    @staticmethod
    def backward(ctx: Any, dx: Tensor) -> tuple[Tensor | None, ...]:
        A, x = ctx.saved_tensors
        with no_autocast(dx.device):
            y = _Solve.apply(A, dx, ctx.solver)
            return -y.unsqueeze(-1) * x.unsqueeze(-2), y, None


def _solve(A: Tensor, b: Tensor, solver: Solver) -> Tensor:
    if solver.name == "cholesky":
        return cholesky(A, b)
    x0 = b / A.diagonal(dim1=-2, dim2=-1)
    return conjugate_gradient(
        lambda p: (p.unsqueeze(-2) @ A).squeeze(-2), b, x0, solver.num_steps, solver.tol
    )
