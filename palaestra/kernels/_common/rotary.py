"""Rotary positions, rotate-half (arXiv 2104.09864)."""

import torch
from torch import Tensor

from palaestra.kernels._common.runtime import acc_dtype


def rotate(x: Tensor, position: Tensor, base: float | None = 10_000.0) -> Tensor:
    """Rotate the pairs `(i, i + D / 2)` of `x [..., D]` by its position; in x's type.

    Args:
      x: `[..., D]`, D even.
      position: of a shape that broadcasts with `x.shape[:-1]`.
      base: slowest wave length over 2 pi, in positions; None leaves the pairs as they are.
    """
    if base is None:
        return x
    # bfloat16 does not tell position 257 from 256.
    angle = position.unsqueeze(-1) * frequencies(x.shape[-1], base, acc_dtype(x.dtype), x.device)
    cos, sin = angle.cos(), angle.sin()
    x_1, x_2 = x.chunk(2, -1)
    return torch.cat([x_1 * cos - x_2 * sin, x_2 * cos + x_1 * sin], -1).to(x.dtype)


def frequencies(width: int, base: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the angle that one position adds to each pair, `[width / 2]`."""
    # Rounded once, from float64: an error of the angle grows with the position.
    exponent = torch.arange(0, width, 2, dtype=torch.float64, device=device) / width
    return (base**-exponent).to(dtype)
