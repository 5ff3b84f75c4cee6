"""The memory of RAT: a key and a value per finished chunk, and the averages of the open chunk."""

from dataclasses import dataclass

import torch
from torch import Tensor

from palaestra.experience.state import State


@dataclass
class RatState(State):
    """A ring buffer of finished chunks: chunk c of the episode lies in slot c mod C.

    Slots without a chunk of the running episode hold zeros.
    """

    k_end: Tensor
    """Keys of finished chunks `[B, H, C, D]`, rotated, in the type of the inputs."""
    v_end: Tensor
    """Values of finished chunks `[B, H, C, D]`."""
    k_run: Tensor
    """Key of the open chunk `[B, H, D]`, not rotated, in the type of the computation."""
    v_run: Tensor
    """Value of the open chunk `[B, H, D]`."""
    pos: Tensor
    """int32 `[B]`, steps of the running episode so far."""

    @property
    def capacity(self) -> int:
        """How many finished chunks a query sees, besides the open one."""
        return self.k_end.shape[2]


def empty_state(
    batch: int, heads: int, capacity: int, width: int, *, like: Tensor | None = None
) -> RatState:
    """Return the state before the first step; `like` gives the inputs' type and the device."""
    like = torch.empty(0) if like is None else like
    ends = (batch, heads, capacity, width)
    run = like.new_zeros(batch, heads, width, dtype=torch.promote_types(like.dtype, torch.float32))
    pos = torch.zeros(batch, dtype=torch.int32, device=like.device)
    return RatState(like.new_zeros(ends), like.new_zeros(ends), run, torch.zeros_like(run), pos)
