"""Attention in plain PyTorch: the specification, and the path on CPU."""

import torch
from torch import Tensor

from palaestra.kernels._common.resets import positions, segments
from palaestra.kernels.attention.state import AttentionState


def chunk(
    q: Tensor, k: Tensor, v: Tensor, reset: Tensor, state: AttentionState, scale: float
) -> tuple[Tensor, AttentionState]:
    """Read a window; arguments as `chunk_attention`, all given."""
    T, W = q.shape[1], state.window
    mask = visible(reset, state.pos, W)  # (B, T, W + T)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, H, T, D)
    q, bad_q = _finite(q)
    keys, bad_k = _finite(torch.cat([state.k, k], 2))  # (B, H, W + T, D)
    values, bad_v = _finite(torch.cat([state.v, v], 2))
    scores = (scale * q) @ keys.transpose(2, 3)  # (B, H, T, W + T)
    o = scores.masked_fill(~mask.unsqueeze(1), -torch.inf).softmax(-1) @ values
    broken = bad_q | (mask & (bad_k | bad_v).unsqueeze(1)).any(2)
    o = o.masked_fill(broken[:, None, :, None], torch.nan)
    p_last = positions(reset, state.pos)[:, -1]  # (B,)
    return o.transpose(1, 2), AttentionState(
        _last(state.k, k, p_last, T), _last(state.v, v, p_last, T), (p_last + 1).int()
    )


def step(
    q: Tensor, k: Tensor, v: Tensor, reset: Tensor, state: AttentionState, scale: float
) -> tuple[Tensor, AttentionState]:
    """Read one step; arguments as `step_attention`, all given."""
    p = state.pos.masked_fill(reset, 0)  # (B,)
    seen = torch.arange(state.window, device=q.device) <= p.unsqueeze(1)  # (B, W)
    slot = (p % state.window).long()[:, None, None, None].expand_as(k.unsqueeze(2))
    ended = reset.nonzero().squeeze(1)
    # Zeros, not the stale numbers: a stale NaN times a weight of 0 would still be NaN.
    keys = state.k.index_fill(0, ended, 0).scatter_(2, slot, k.unsqueeze(2))  # (B, H, W, D)
    values = state.v.index_fill(0, ended, 0).scatter_(2, slot, v.unsqueeze(2))
    scores = (scale * q).unsqueeze(2) @ keys.transpose(2, 3)  # (B, H, 1, W)
    weights = scores.masked_fill(~seen[:, None, None], -torch.inf).softmax(-1)
    return (weights @ values).squeeze(2), AttentionState(keys, values, p + 1)


def visible(reset: Tensor, pos: Tensor, window: int) -> Tensor:
    """Return which keys each query sees, bool `[B, T, W + T]`: the W slots, then the T steps."""
    T, device = reset.shape[1], reset.device
    seg, p = segments(reset), positions(reset, pos)
    last = pos.unsqueeze(1) - 1
    slots = torch.arange(window, device=device)
    p_slot = last - (last - slots) % window  # (B, W)
    carried = (seg == 0).unsqueeze(2) & (p_slot >= 0).unsqueeze(1)
    carried = carried & (p.unsqueeze(2) - p_slot.unsqueeze(1) < window)
    t = torch.arange(T, device=device)
    lag = t.unsqueeze(1) - t
    inside = (lag >= 0) & (lag < window) & (seg.unsqueeze(2) == seg.unsqueeze(1))
    return torch.cat([carried, inside], 2)


def _finite(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return `x` with broken steps set to zero, and which those are, `[B, T]`.

    A weight of 0 does not stop NaN in a product, neither forward nor backward; so broken steps
    leave the products and mark by hand the outputs that see them.
    """
    bad = ~x.isfinite().all(3).all(1)
    return x.masked_fill(bad[:, None, :, None], 0), bad


def _last(cache: Tensor, x: Tensor, p_last: Tensor, T: int) -> Tensor:
    """Return the ring buffer `[B, H, W, D]` after the window `x [B, H, T, D]`."""
    slots = torch.arange(cache.shape[2], device=x.device)
    age = (p_last.unsqueeze(1) - slots) % cache.shape[2]  # (B, W), 0 for the last step
    index = (T - 1 - age).clamp(min=0)[:, None, :, None].expand_as(cache)
    kept = torch.where((age < T)[:, None, :, None], x.gather(2, index), cache)
    return kept.masked_fill((age > p_last.unsqueeze(1))[:, None, :, None], 0)
