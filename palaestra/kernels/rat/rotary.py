"""Rotary positions, rotate-half (arXiv 2104.09864), counted in chunks."""

import torch
from torch import Tensor


def frequencies(width: int, base: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the angle that one chunk adds to each pair, `[width / 2]`."""
    # Rounded once, from float64: an error of the angle grows with the chunk index.
    exponent = torch.arange(0, width, 2, dtype=torch.float64, device=device) / width
    return (base**-exponent).to(dtype)


def rotate(x: Tensor, chunk: Tensor, base: float | None) -> Tensor:
    """Rotate the pairs `(i, i + D / 2)` of `x [..., D]` by its chunk index; None leaves them.

    Args:
      x: `[..., D]`, D even.
      chunk: of a shape that broadcasts with `x.shape[:-1]`.
      base: slowest wave length over 2 pi, in chunks.
    """
    if base is None:
        return x
    angle = chunk.unsqueeze(-1) * frequencies(x.shape[-1], base, x.dtype, x.device)
    cos, sin = angle.cos(), angle.sin()
    x_1, x_2 = x.chunk(2, -1)
    return torch.cat([x_1 * cos - x_2 * sin, x_2 * cos + x_1 * sin], -1)
