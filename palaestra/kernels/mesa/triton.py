# mypy: disable-error-code="import-untyped, import-not-found"
"""Mesa in Triton: one program per row and head goes through the chunks, the sums on chip.

Forward is one kernel. Backward is two: one in the order of time, which recomputes the sums and
solves for y, and one back through time, which needs no sums but only their gradients.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from palaestra.kernels._common.autograd import by_hand
from palaestra.kernels._common.runtime import ALL_REGISTERS, guard
from palaestra.kernels.mesa.solve import Solver
from palaestra.kernels.mesa.state import MesaResiduals
from palaestra.kernels.mesa.triton_kernels import (
    mesa_bwd_kernel_back,
    mesa_bwd_kernel_solve,
    mesa_fwd_kernel,
)


class MesaTriton(torch.autograd.Function):
    """As `MesaChunk`; solves by conjugate gradients alone."""

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
        q, *inputs = (x.contiguous() for x in (q, k, v, g, beta, lamb, reset, hkk, hkv))
        o, x = torch.empty_like(inputs[1]), torch.empty_like(q)
        hkk_T, hkv_T = torch.empty_like(hkk), torch.empty_like(hkv)
        residual = q.new_empty(q.shape[:3]) if residuals is not None else None
        shape = _shape(k, v, chunk_size)
        with guard(q.device):
            mesa_fwd_kernel[(len(q) * q.shape[2],)](
                *(q, *inputs),
                *(o, x, hkk_T, hkv_T, residual),
                *(q.shape[1], solver.num_steps, solver.tol),
                **shape,
            )
        if residuals is not None:
            residuals.forward = residual
        ctx.save_for_backward(*inputs, x)
        ctx.solver, ctx.shape, ctx.residuals = solver, shape, residuals
        return o, hkk_T, hkv_T

    @staticmethod
    @by_hand
    def backward(ctx: Any, do: Tensor, dhkk: Tensor, dhkv: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of all arguments."""
        *inputs, x = ctx.saved_tensors
        k, v, g, beta, lamb, reset, hkk, hkv = inputs
        (B, T, H), solver = k.shape[:3], ctx.solver
        do, dhkk, dhkv = (d.contiguous() for d in (do, dhkk, dhkv))
        y, dk, dv, dg, dbeta = (torch.empty_like(a) for a in (k, k, v, g, beta))
        dhkk_0, dhkv_0 = torch.empty_like(hkk), torch.empty_like(hkv)
        flow, dlast, dlamb = torch.empty_like(g), g.new_empty(B, H), g.new_empty(B, *lamb.shape)
        residual = torch.empty_like(g) if ctx.residuals is not None else None
        with guard(k.device):
            mesa_bwd_kernel_solve[(B * H,)](
                *(*inputs, x, do, dhkk, dhkv),
                *(y, flow, dlast, dlamb, residual),
                *(T, solver.num_steps, solver.tol),
                **ctx.shape,
            )
            mesa_bwd_kernel_back[(B * H,)](
                *(k, v, g, beta, reset),
                *(x, y, do, dhkk, dhkv, flow, dlast),
                *(dk, dv, dg, dbeta, dhkk_0, dhkv_0),
                T,
                **ctx.shape,
            )
        if ctx.residuals is not None:
            ctx.residuals.backward = residual
        return y, dk, dv, dg, dbeta, dlamb.sum(0), None, dhkk_0, dhkv_0, None, None, None


def _shape(k: Tensor, v: Tensor, chunk_size: int) -> dict[str, Any]:
    """Return the kernels' constants; widths are padded to what a product in blocks needs."""
    H, K, V = k.shape[2], k.shape[3], v.shape[3]
    BK, BV = (max(16, triton.next_power_of_2(width)) for width in (K, V))
    return {
        "H": H,
        "K": K,
        "V": V,
        "L": chunk_size,
        "BK": BK,
        "BV": BV,
        "ACC": tl.float64 if k.dtype == torch.float64 else tl.float32,
        # exp of less is 0 in ACC.
        "CUT": -750.0 if k.dtype == torch.float64 else -104.0,
        # As many as share the most registers: full precision needs them at any width.
        "num_warps": 8,
        # Loads ahead of their use would not fit beside wide sums.
        "num_stages": 1 if max(BK, BV) > 64 else 3,
        **ALL_REGISTERS,
    }
