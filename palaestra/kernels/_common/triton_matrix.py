# mypy: disable-error-code="import-untyped, import-not-found, no-untyped-def"
"""One step in Triton where the memory is a matrix for each head: what the kernels have in common.

A program takes a row, a head and a block of value channels: `[K, BV]` of the state.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def factor(g) -> tl.tensor:
    """Return what is left of a state, exp(g); NaN where g is above 0."""
    return tl.where(g > 0, float("nan"), tl.exp(g))


def grid(state: Tensor, BV: int) -> tuple[int]:
    """Return how many programs there are."""
    B, H, _, V = state.shape
    return (B * H * triton.cdiv(V, BV),)


def constants(state: Tensor) -> dict[str, Any]:
    """Return widths, blocks and the type of the computation."""
    H, K, V = state.shape[1:]
    BK, BV = triton.next_power_of_2(K), min(32, triton.next_power_of_2(V))
    return {
        "H": H,
        "K": K,
        "V": V,
        "BK": BK,
        "BV": BV,
        "ACC": tl.float64 if state.dtype == torch.float64 else tl.float32,
        "num_warps": min(8, max(1, BK * BV // 512)),
    }


def scaled(q: Tensor, scale: float) -> tuple[Tensor, float]:
    """Return the queries, and the scale that the kernel still has to multiply by."""
    # Triton takes real arguments in float32.
    return (q * scale, 1.0) if q.dtype == torch.float64 else (q, scale)


def target(state: Tensor, inplace: bool) -> Tensor:
    """Return where the new state goes.

    Raises:
      ValueError: a state that is no contiguous block of memory cannot be written in place.
    """
    if inplace and not state.is_contiguous():
        raise ValueError("state: it has to be contiguous to be written in place.")
    return state if inplace else torch.empty_like(state, memory_format=torch.contiguous_format)
