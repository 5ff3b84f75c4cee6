"""The ring of finished chunks after a window."""

import torch
from torch import Tensor

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
