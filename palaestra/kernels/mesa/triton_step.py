"""One step of Mesa in Triton, without gradients: a window of one step for the forward kernel."""

import torch
from torch import Tensor

from palaestra.kernels.mesa.solve import Solver
from palaestra.kernels.mesa.state import MesaState
from palaestra.kernels.mesa.triton import MesaTriton

CHUNK = 16
"""Steps that the kernel's products in blocks have room for, the fewest there are."""


@torch.no_grad()
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
    """Read one step; arguments as `reference.step`."""
    first = reset[:, None, None, None]
    # The kernel multiplies by 0 at a reset, and 0 times a NaN of the old episode would be NaN.
    sums = state.hkk.masked_fill(first, 0), state.hkv.masked_fill(first, 0)
    x = (y.unsqueeze(1) for y in (q, k, v, g, beta))
    o, hkk, hkv = MesaTriton.apply(*x, lamb, reset.unsqueeze(1), *sums, solver, CHUNK, None)
    return o.squeeze(1), MesaState(hkk, hkv)
