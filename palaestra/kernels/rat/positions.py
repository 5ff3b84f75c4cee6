"""Where each step lies in its episode's chunks, and which finished chunks it sees.

Everything is told by times: steps of the window count from 0, those before it are negative, and a
finished chunk is known by the time of its last step.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from palaestra.kernels._common.runtime import is_none, steps


class ChunkPositions(NamedTuple):
    """Episode and chunk of every step of a window, int64 `[B, T]`."""

    origin: Tensor
    """Time of the first step of its episode; at most 0 if that began before the window."""
    chunk: Tensor
    """Chunk index c in the episode."""
    inside: Tensor
    """Index l in the chunk, 0 .. L - 1."""


def chunk_positions(reset: Tensor, pos: Tensor, L: int) -> ChunkPositions:
    """Return where each step lies from `reset [B, T]`, `pos [B]` and the chunk length."""
    t = steps(reset.shape[1], reset.device)
    origin = torch.where(reset, t, -pos.unsqueeze(1)).cummax(1).values
    p = t - origin
    return ChunkPositions(origin, p // L, p % L)


def ends(inside: Tensor, L: int) -> Tensor:
    """Return when a chunk is finished in each L steps of the window, `[B, ceil(T / L)]`.

    Two ends are at least L steps apart, resets or not, so L steps hold at most one; T is none.
    """
    B, T = inside.shape
    N = -(-T // L)
    end = torch.where(inside == L - 1, steps(T, inside.device), T)
    if N * L > T:
        end = pad(end, (0, N * L - T), value=T)
    return end.view(B, N, L).amin(2)


def slot_ends(pos: Tensor, now: int, L: int, capacity: int) -> Tensor:
    """Return when the chunk in each slot of the ring was finished, `[B, C]`.

    Of an empty slot this is before its episode began.

    Args:
      pos: `[B]`, steps of the running episode before the time `now`.
      now: the time at which the ring is looked at.
      L: steps of a chunk.
      capacity: C.
    """
    pos = pos.unsqueeze(1)
    back = (pos // L - 1 - steps(capacity, pos.device)) % capacity
    return (now - 1 - pos % L) - L * back


def hidden(position: ChunkPositions, end: Tensor, L: int, capacity: int) -> Tensor:
    """Return which of the chunks finished at `end [B, M]` each step does not see, `[B, M, T]`.

    It sees those of its episode that were finished before its own chunk began, the last C of them.
    """
    begin = steps(position.inside.shape[1], end.device) - position.inside
    oldest = torch.maximum(position.origin, begin - capacity * L)
    end = end.unsqueeze(2)
    return (end < oldest.unsqueeze(1)) | (end >= begin.unsqueeze(1))


def sources(pos: Tensor, T: int, L: int, capacity: int, carried: int) -> Tensor:
    """Return where the chunk in each slot after a window comes from, int64 `[B, C]`.

    It is a slot before the window (0 ..), the place of a chunk finished in the window (from
    `carried` on), or the place after all of these, where there is none.

    Args:
      pos: `[B]`, steps of the running episode after the window.
      T: steps of the window.
      L: steps of a chunk.
      capacity: C.
      carried: how many slots before the window are counted: C or, if none is in use, 0.
    """
    end = slot_ends(pos, T, L, capacity)
    slot = steps(capacity, pos.device)
    source = torch.where(end >= 0, carried + end // L, slot)
    return source.masked_fill_(end < T - pos.unsqueeze(1), carried - (-T // L))


class Places(NamedTuple):
    """Where everything lies: made from resets and positions alone."""

    continues: Tensor
    """bool `[B, T]`: false where a chunk begins."""
    chunk: Tensor
    """Chunk index of each step `[B, T]`."""
    end: Tensor
    """Time of the end in each L steps, `[B, N]`; T is none."""
    hidden: Tensor
    """Which of the M finished chunks, carried and new, a step does not see, bool `[B, M, T]`."""
    source: Tensor
    """Which of them is in each slot after the window, `[B, C]`; M is none."""
    pos: Tensor
    """`[B]`, steps of the running episode after the window."""


def places(reset: Tensor, pos: Tensor, L: int, capacity: int, carried: bool) -> Places:
    """Return where everything lies in a window that starts after `pos [B]` steps of an episode.

    `carried` false says that the ring is empty. It is left out, M = N, where it is known to be
    empty or that no row continues an episode.
    """
    position = chunk_positions(reset, pos, L)
    end, after = ends(position.inside, L), reset.shape[1] - position.origin[:, -1]
    known = capacity if carried and not is_none(position.origin < 0) else 0
    seen = torch.cat([slot_ends(pos, 0, L, capacity), end], 1) if known else end
    source = sources(after, reset.shape[1], L, capacity, known)
    unseen = hidden(position, seen, L, capacity)
    return Places(position.inside > 0, position.chunk, end, unseen, source, after)
