"""Constant log decays of the heads of Lightning Attention."""

import math

import torch
from torch import Tensor


def lightning_decay(
    heads: int, *, layer: int | None = None, layers: int | None = None, like: Tensor | None = None
) -> Tensor:
    """Return a log decay `[H]` for each head.

    Without `layer` these are the slopes of ALiBi (arXiv 2108.12409), negated, as in the published
    code of Lightning Attention-2 (arXiv 2401.04658): `g_h = -2^(-8 (h + 1) / H)`, and for H that is
    no power of two those of the next lower one, filled up with every other of twice as many. With
    `layer` it is the schedule of the library flash-linear-attention,
    `g_h = -(8 / H) (1 - layer / layers) h`, whose first head never forgets.

    Args:
      heads: how many.
      layer: index from 0 of the layer.
      layers: how many layers there are; needed with `layer`.
      like: gives type and device.

    Raises:
      ValueError: one of `layer` and `layers` without the other, or a number out of range.
    """
    if heads < 1:
        raise ValueError(f"heads: {heads} is not at least 1.")
    if (layer is None) != (layers is None):
        raise ValueError("layer, layers: both or none of them are accepted.")
    if layer is None or layers is None:
        g = [-slope for slope in _slopes(heads)]
    elif 0 <= layer < layers:
        g = [-8 / heads * (1 - layer / layers) * h for h in range(heads)]
    else:
        raise ValueError(f"layer: {layer} is not one of 0 .. {layers - 1}.")
    like = torch.empty(0) if like is None else like
    return torch.tensor(g, dtype=like.dtype, device=like.device)


def _slopes(heads: int) -> list[float]:
    power = 1 << int(math.log2(heads))
    slopes = [2 ** (-8 * (h + 1) / power) for h in range(power)]
    if power < heads:
        slopes += _slopes(2 * power)[::2][: heads - power]
    return slopes
