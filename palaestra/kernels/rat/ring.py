"""The ring of finished chunks: what a step and a window make of it."""

import torch
from torch import Tensor

from palaestra.kernels._common.runtime import steps
from palaestra.kernels.rat.positions import sources


def after(ring: Tensor, ended: Tensor, pos: Tensor, T: int, L: int) -> Tensor:
    """Return the ring `[B, H, C, D]` after the window.

    Args:
      ring: before the window.
      ended: the chunks finished in each L steps of the window, `[B, H, N, D]`.
      pos: `[B]`, steps of the running episode after the window.
      T: steps of the window.
      L: steps of a chunk.
    """
    source = sources(pos, T, L, ring.shape[2], ring.shape[2])
    none = ring.new_zeros(*ring.shape[:2], 1, ring.shape[3])
    index = source[:, None, :, None].expand_as(ring)
    return torch.cat([ring, ended, none], 2).gather(2, index)


def emptied(ring: Tensor, rows: Tensor, inplace: bool = False) -> Tensor:
    """Return the ring with zeros in the rows `[B]`, bool; `inplace` changes the given one.

    Zeros, not the stale numbers: a stale NaN times a weight of 0 would still be NaN.
    """
    mask = rows[:, None, None, None]
    return ring.masked_fill_(mask, 0) if inplace else ring.masked_fill(mask, 0)


def put(ring: Tensor, new: Tensor, slot: Tensor, rows: Tensor, inplace: bool = False) -> Tensor:
    """Return the ring with `new [B, H, D]` in the slot `[B]` of the rows `[B]`, bool."""
    at = steps(ring.shape[2], ring.device) == slot.unsqueeze(1)
    at = (at & rows.unsqueeze(1))[:, None, :, None]  # (B, 1, C, 1)
    return torch.where(at, new.unsqueeze(2), ring, out=ring if inplace else None)
