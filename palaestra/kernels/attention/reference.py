"""Attention in plain PyTorch: the token loop, the blocks of queries that run on CPU, and a step."""

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from palaestra.kernels._common.autograd import by_hand
from palaestra.kernels._common.nonfinite import nonfinite
from palaestra.kernels.attention.context import Context
from palaestra.kernels.attention.state import AttentionState

_KEPT = 8
"""How many times the context blocks may keep for the backward; beyond it they are made again."""


def recurrent(
    q: Tensor, k: Tensor, v: Tensor, reset: Tensor, state: AttentionState, scale: float
) -> tuple[Tensor, AttentionState]:
    """Read a window step by step; arguments as `recurrent_attention`, all given."""
    rows = []
    for t in range(q.shape[1]):
        o_t, state = step(q[:, t], k[:, t], v[:, t], reset[:, t], state, scale)
        rows.append(o_t)
    return torch.stack(rows, 1), state


def chunk(q: Tensor, context: Context, window: int, scale: float, chunk_size: int) -> Tensor:
    """Return what queries `[B, T, H, D]` read from the context, block after block of queries.

    A block sees at most `window + chunk_size - 1` places, so scores never take more memory than
    that; torch's kernel keeps none of them for the backward.
    """
    bad_q, bad = nonfinite(q), nonfinite(context.k, context.v)
    q, k, v = (_Finite.apply(x).transpose(1, 2) for x in (q, context.k, context.v))
    spans = _spans(context.carried, q.shape[2], window, chunk_size)
    queries = q.split(chunk_size, 2)
    if sum(span.hi - span.lo for span in spans) > _KEPT * k.shape[2]:
        args = (k, v, context, scale)
        blocks = [
            checkpoint(
                _slice_and_read, q_i, *args, span, use_reentrant=False, preserve_rng_state=False
            )
            for q_i, span in zip(queries, spans, strict=True)
        ]
    else:
        blocks = [
            _read(q_i, k_i, v_i, context, scale, span)
            for q_i, k_i, v_i, span in zip(
                queries, _cut(k, spans), _cut(v, spans), spans, strict=True
            )
        ]
    reached = bad_q | _any_seen(bad, context)
    o = torch.cat(blocks, 2).transpose(1, 2)
    return o.masked_fill(reached.unsqueeze(3), torch.nan)


class _Span(NamedTuple):
    """A block of queries `t .. stop - 1` and the places `lo .. hi - 1` that it may see."""

    t: int
    stop: int
    lo: int
    hi: int


def _spans(P: int, T: int, window: int, chunk_size: int) -> list[_Span]:
    stops = [min(t + chunk_size, T) for t in range(0, T, chunk_size)]
    return [
        _Span(t, stop, max(0, P + t - window + 1), P + stop)
        for t, stop in zip(range(0, T, chunk_size), stops, strict=True)
    ]


def _slice_and_read(
    q: Tensor, k: Tensor, v: Tensor, context: Context, scale: float, span: _Span
) -> Tensor:
    places = slice(span.lo, span.hi)
    return _read(q, k[:, :, places], v[:, :, places], context, scale, span)


def _read(q: Tensor, k: Tensor, v: Tensor, context: Context, scale: float, span: _Span) -> Tensor:
    bias = _bias(context, span, q.dtype)
    return scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)


def _cut(x: Tensor, spans: list[_Span]) -> list[Tensor]:
    """Return the places of each span, `[B, H, hi - lo, D]`.

    They overlap. Slices of x would each fill a gradient as long as x; pieces that meet at every
    border add up where they overlap alone.
    """
    borders = sorted({b for span in spans for b in (span.lo, span.hi)})
    pieces = x.split([hi - lo for lo, hi in pairwise(borders)], 2)
    at = {border: i for i, border in enumerate(borders)}
    return [torch.cat(pieces[at[span.lo] : at[span.hi]], 2) for span in spans]


def _bias(context: Context, span: _Span, dtype: torch.dtype) -> Tensor:
    """Return what is added to the scores, `[B, 1, queries, places]`: 0 where seen, else -inf."""
    place = torch.arange(span.lo, span.hi, device=context.lo.device)
    last = context.carried + torch.arange(span.t, span.stop, device=place.device).unsqueeze(1)
    seen = (place <= last) & (place >= context.lo[:, span.t : span.stop].unsqueeze(2))
    zero = torch.zeros((), dtype=dtype, device=place.device)
    return torch.where(seen, zero, -torch.inf).unsqueeze(1)


def step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    reset: Tensor,
    state: AttentionState,
    scale: float,
    inplace: bool = False,
) -> tuple[Tensor, AttentionState]:
    """Read one step; arguments as `step_attention`, all given."""
    p = state.pos.masked_fill(reset, 0)  # (B,)
    keys, values = (state.k, state.v) if inplace else (state.k.clone(), state.v.clone())
    _clear(reset, keys, values)
    rows = torch.arange(len(p), device=p.device)
    slot = (p % state.window).long()
    keys[rows, :, slot] = k
    values[rows, :, slot] = v
    seen = torch.arange(state.window, device=p.device) <= p.view(-1, 1, 1, 1)  # (B, 1, 1, W)
    o = scaled_dot_product_attention(
        q.unsqueeze(2), keys, values, attn_mask=seen, scale=scale
    ).squeeze(2)
    if not inplace:
        return o, AttentionState(keys, values, p + 1)
    state.pos.copy_(p + 1)
    return o, state


def _clear(reset: Tensor, *buffers: Tensor) -> None:
    """Set the rows at `reset` to zero: a weight of 0 times a stale NaN would still be NaN."""
    if reset.device.type != "cpu" or torch.compiler.is_compiling():
        for x in buffers:
            x.masked_fill_(reset[:, None, None, None], 0)
    # Here the host knows the mask without waiting, and at most steps there is nothing to do.
    elif len(ended := reset.nonzero().squeeze(1)):
        for x in buffers:
            x.index_fill_(0, ended, 0)


class _Finite(torch.autograd.Function):
    """Zeros instead of numbers that are not finite.

    A weight of 0 does not stop NaN in a product, neither forward nor backward; so such numbers
    leave the products, and the outputs that see them are marked by hand. Those outputs hand back
    no gradient, so that of those numbers is 0 without a mask.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return the cleaned `x`."""
        return x.nan_to_num(0, 0, 0)

    @staticmethod
    @by_hand
    def backward(ctx: Any, dx: Tensor) -> Tensor:
        """Return the gradient as it is."""
        return dx


def _any_seen(bad: Tensor, context: Context) -> Tensor:
    """Return which queries see a non-finite place, `[B, T, H]`."""
    before = pad(bad.cumsum(1), (0, 0, 1, 0))
    lo = context.lo.unsqueeze(2).expand(-1, -1, bad.shape[2])
    return before[:, context.carried + 1 :] > before.gather(1, lo)
