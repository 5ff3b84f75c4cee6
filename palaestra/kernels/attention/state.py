"""The memory of attention: the last keys and values of the running episode."""

from dataclasses import dataclass

import torch
from torch import Tensor

from palaestra.experience.state import State


@dataclass
class AttentionState(State):
    """A ring buffer: the step at position p of its episode lies in slot p mod W.

    Slots without a step of the running episode hold zeros.
    """

    k: Tensor
    """Keys `[B, H, W, D]`; W is the window."""
    v: Tensor
    """Values `[B, H, W, D]`."""
    pos: Tensor
    """int32 `[B]`, steps of the running episode so far."""

    @property
    def window(self) -> int:
        """How many steps a query sees, itself included."""
        return self.k.shape[2]


def empty_state(
    batch: int, heads: int, window: int, width: int, *, like: Tensor | None = None
) -> AttentionState:
    """Return the state before the first step; `like` gives type and device."""
    like = torch.empty(0) if like is None else like
    shape = (batch, heads, window, width)
    pos = torch.zeros(batch, dtype=torch.int32, device=like.device)
    return AttentionState(like.new_zeros(shape), like.new_zeros(shape), pos)
