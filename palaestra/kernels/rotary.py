"""Rotary positions, rotate-half (arXiv 2104.09864)."""

from functools import cache

import torch
from torch import Tensor

from palaestra.kernels._common.runtime import acc_dtype, asking_is_free


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
    """Return the angle that one position adds to each pair, `[width / 2]`; not to be written to."""
    if device.type != "cpu" or torch.compiler.is_compiling():
        return _frequencies(width, base, dtype, device)
    return _kept_frequencies(width, base, dtype)


KEPT_POSITIONS = 1024
"""Positions whose cosines and sines are kept."""

Turns = tuple[Tensor, Tensor] | None
"""What `turn` needs of positions: cosines and sines, or None for no rotation."""


def turns(
    position: Tensor, heads: int, width: int, base: float | None, dtype: torch.dtype
) -> Turns:
    """Return the factors `[..., heads, width]` of `turn` for positions `[...]` from 0 on.

    `dtype` is that of the computation, float32 or float64.
    """
    if base is None:
        return None
    flat = position.flatten()
    if asking_is_free(position) and int(position.max()) < KEPT_POSITIONS:
        found = _kept_turns(heads, width, base, dtype).index_select(1, flat)
    else:
        found = _turns(flat, heads, width, base, dtype)
    cos, sin = found.view(2, *position.shape, heads, width).unbind()
    return cos, sin


def turn(x: Tensor, at: Turns, way: int = 1) -> Tensor:
    """Return `rotate(x)`, x in the type of the computation; `way` -1 turns back."""
    if at is None:
        return x
    cos, sin = at
    return torch.addcmul(cos * x, sin, x.roll(x.shape[-1] // 2, -1), value=way)


def _turns(position: Tensor, heads: int, width: int, base: float, dtype: torch.dtype) -> Tensor:
    angle = position.unsqueeze(1) * frequencies(width, base, dtype, position.device)
    cos, sin = angle.cos(), angle.sin()
    pairs = torch.stack([torch.cat([cos, cos], 1), torch.cat([-sin, sin], 1)])
    return pairs.repeat(1, 1, heads)


@cache
def _kept_turns(heads: int, width: int, base: float, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        return _turns(torch.arange(KEPT_POSITIONS), heads, width, base, dtype)


def _frequencies(width: int, base: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    # Rounded once, from float64: an error of the angle grows with the position.
    exponent = torch.arange(0, width, 2, dtype=torch.float64, device=device) / width
    return (base**-exponent).to(dtype)


@cache
def _kept_frequencies(width: int, base: float, dtype: torch.dtype) -> Tensor:
    # What inference mode makes, a later backward pass could not use.
    with torch.inference_mode(False):
        return _frequencies(width, base, dtype, torch.device("cpu"))
