"""Where each step lies in its episode's chunks, and which finished chunks it sees."""

from typing import NamedTuple

import torch
from torch import Tensor

from palaestra.kernels._common.resets import positions, segments


class Phase(NamedTuple):
    """Episode and chunk of every step of a window, int64 `[B, T]`."""

    seg: Tensor
    """Number of the episode in the window; 0 began before it."""
    chunk: Tensor
    """Chunk index c in the episode."""
    inside: Tensor
    """Index l in the chunk, 0 .. L - 1."""
    pos: Tensor
    """`[B]`, steps of the running episode after the window."""


def phases(reset: Tensor, pos: Tensor, L: int) -> Phase:
    """Return the phase of each step from `reset [B, T]`, `pos [B]` and the chunk length."""
    p = positions(reset, pos)
    return Phase(segments(reset), p // L, p % L, p[:, -1] + 1)


def ends(inside: Tensor, L: int) -> Tensor:
    """Return the step that finishes a chunk in each L steps of the window, `[B, ceil(T / L)]`.

    Two ends are at least L steps apart, resets or not, so L steps hold at most one; -1 is none.
    """
    B, T = inside.shape
    N = -(-T // L)
    t = torch.arange(T, device=inside.device)
    step = torch.where(inside == L - 1, t, -1)
    return torch.nn.functional.pad(step, (0, N * L - T), value=-1).view(B, N, L).amax(2)


def slot_chunks(finished: Tensor, capacity: int) -> Tensor:
    """Return the chunk index in each slot of a ring, negative where empty, `[B, C]`.

    Args:
      finished: `[B]`, finished chunks of the running episode.
      capacity: C.
    """
    last = finished.unsqueeze(1).long() - 1
    return last - (last - torch.arange(capacity, device=finished.device)) % capacity


def visible(phase: Phase, end: Tensor, capacity: int) -> Tensor:
    """Return which chunks finished in the window each step sees, bool `[B, T, N]`."""
    at = end.clamp(min=0)
    lag = phase.chunk.unsqueeze(2) - phase.chunk.gather(1, at).unsqueeze(1)
    same = phase.seg.unsqueeze(2) == phase.seg.gather(1, at).unsqueeze(1)
    return (end >= 0).unsqueeze(1) & same & (lag > 0) & (lag <= capacity)


def visible_slots(phase: Phase, pos: Tensor, L: int, capacity: int) -> Tensor:
    """Return which slots of the carried ring each step sees, bool `[B, T, C]`."""
    held = slot_chunks(pos // L, capacity).unsqueeze(1)
    carried = (phase.seg == 0).unsqueeze(2) & (held >= 0)
    return carried & (phase.chunk.unsqueeze(2) - held <= capacity)
