"""The ring of finished chunks: what a step and a window make of it."""

import torch
from torch import Tensor

from palaestra.kernels._common.runtime import asking_is_free
from palaestra.kernels.rat.phase import slot_chunks


def after(ring: Tensor, ended: Tensor, pos: Tensor, T: int, L: int) -> Tensor:
    """Return the ring `[B, H, C, D]` after the window.

    Args:
      ring: before the window.
      ended: the chunks finished in each L steps of the window, `[B, H, N, D]`.
      pos: `[B]`, steps of the running episode after the window.
      T: steps of the window.
      L: steps of a chunk.
    """
    held = slot_chunks(pos // L, ring.shape[2])  # (B, C)
    # The steps of the running episode are the last ones of the window.
    step = T - pos.unsqueeze(1) + held * L + L - 1
    index = (step.clamp(min=0) // L)[:, None, :, None].expand_as(ring)
    new = torch.where((step >= 0)[:, None, :, None], ended.gather(2, index), ring)
    return new.masked_fill((held < 0)[:, None, :, None], 0)


def emptied(ring: Tensor, rows: Tensor) -> Tensor:
    """Return the ring with zeros in the rows `[B]`, bool.

    Zeros, not the stale numbers: a stale NaN times a weight of 0 would still be NaN.
    """
    return ring.masked_fill(rows[:, None, None, None], 0)


def put(ring: Tensor, new: Tensor, slot: Tensor, rows: Tensor) -> Tensor:
    """Return the ring with `new [B, H, D]` in the slot `[B]` of the rows `[B]`, bool."""
    at = slot[:, None, None, None].expand(*new.shape[:2], 1, new.shape[2])
    new = torch.where(rows[:, None, None, None], new.unsqueeze(2), ring.gather(2, at))
    return ring.scatter(2, at, new)


def is_none(marks: Tensor) -> bool:
    """Whether nothing is marked; false where it is not free to ask."""
    return asking_is_free(marks) and not marks.any()
