"""The context of a window: carried keys and its own on one line, in the order of time.

The carried state's last W - 1 steps come first, then the T steps of the window: step t stands at
place P + t, with P = W - 1, or P = 0 without a state. What query t sees is then an interval,
`lo_t .. P + t`, whose ends never fall as t grows; this is all that resets, window and cache say.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from palaestra.kernels.attention.state import AttentionState
from palaestra.kernels.resets import positions, segments, starts


class Context(NamedTuple):
    """Keys, values and what each query sees of them."""

    k: Tensor
    """Keys `[B, P + T, H, D]`."""
    v: Tensor
    """Values `[B, P + T, H, D]`."""
    lo: Tensor
    """int64 `[B, T]`, the first place that each query sees."""
    carried: int
    """P."""


def make_context(
    k: Tensor, v: Tensor, reset: Tensor, state: AttentionState | None, window: int
) -> Context:
    """Return the context of the window `k, v [B, T, H, D]` after `state`."""
    P = 0 if state is None else window - 1
    place = P + torch.arange(k.shape[1], device=k.device)
    begun = segments(reset) > 0
    if state is None:
        oldest = torch.zeros_like(place[:1])
    else:
        # Place i holds position pos - P + i; slots of positions below 0 are empty.
        order = (state.pos.unsqueeze(1) - P + torch.arange(P, device=k.device)) % window
        k, v = (torch.cat([_take(x, order), y], 1) for x, y in ((state.k, k), (state.v, v)))
        oldest = (P - state.pos.long()).clamp(min=0).unsqueeze(1)
    lo = torch.where(begun, P + starts(reset), oldest).maximum(place - (window - 1))
    return Context(k, v, lo, P)


def last_state(
    context: Context, reset: Tensor, state: AttentionState | None, window: int
) -> AttentionState:
    """Return the ring buffer after the last step of the context."""
    pos = reset.new_zeros(len(reset), dtype=torch.int32) if state is None else state.pos
    p = positions(reset, pos)[:, -1:]  # (B, 1)
    age = (p - torch.arange(window, device=p.device)) % window  # 0 for the last step
    place = (context.k.shape[1] - 1 - age).clamp(min=0)
    empty = (age > p)[:, None, :, None]
    k, v = (_ring(x, place).masked_fill(empty, 0) for x in (context.k, context.v))
    return AttentionState(k, v, (p.squeeze(1) + 1).int())


def _take(ring: Tensor, order: Tensor) -> Tensor:
    """Return the slots `order [B, P]` of `ring [B, H, W, D]` as `[B, P, H, D]`."""
    rows = torch.arange(len(ring), device=ring.device).unsqueeze(1)
    return ring[rows, :, order]


def _ring(context: Tensor, place: Tensor) -> Tensor:
    """Return the places `[B, W]` of `context [B, P + T, H, D]` as `[B, H, W, D]`."""
    rows = torch.arange(len(context), device=context.device).unsqueeze(1)
    return context[rows, place].transpose(1, 2).contiguous()
