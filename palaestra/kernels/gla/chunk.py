"""Gated linear attention in chunks, both directions written by hand: the path on CPU.

With Q scaled, for all chunks at once but the last line:

    O = (cin Q) S + what the chunk's tokens give each other
    S' = dec S + (cout K)^T V
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from palaestra.kernels._common.broken import broken_steps, not_finite
from palaestra.kernels._common.chunk import join, split
from palaestra.kernels.gla import pairs


def chunk(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    reset: Tensor,
    state: Tensor,
    scale: float,
    chunk_size: int,
) -> tuple[Tensor, Tensor]:
    """Read a window; arguments as `chunk_gla`, all but g given."""
    K, V = state.shape[2:]
    if g is None:
        g = state.new_zeros(*reset.shape, 1)
    q, k, v, state = _widen(q), _widen(k), _widen(v), _widen(_widen(state).mT).mT
    g = g if g.ndim == 3 else _widen(g)
    o, last = _Chunk.apply(q, k, v, g, reset, state, scale, chunk_size)
    return o[..., :V], last[..., :K, :V]


def _widen(x: Tensor) -> Tensor:
    """Return `x` with zeros up to a multiple of four channels.

    Products on CPU round differently where a matrix begins at another offset from a cache line; so
    every row of the batch has to begin on one, or it would depend on the rows before it.
    """
    missing = -x.shape[-1] % 4
    return pad(x, (0, missing)) if missing else x


class _Chunk(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        g: Tensor,
        reset: Tensor,
        state: Tensor,
        scale: float,
        chunk_size: int,
    ) -> tuple[Tensor, Tensor]:
        T, dtype = q.shape[1], state.dtype
        L = min(chunk_size, max(16, 1 << (T - 1).bit_length()))
        q_c, k_c, v_c = (_heads(x, L, dtype) for x in (q, k, v))
        g_c, bad_g = _decays(g.to(dtype), reset)
        bad_q = _tokens(not_finite(q_c), T)
        bad = _tokens(not_finite(k_c, v_c), T) | bad_g
        bad_state = not_finite(state.flatten(2))
        q_c = _clear(q_c, bad_q).mul_(scale)
        k_c, v_c = _clear(k_c, bad), _clear(v_c, bad)
        intra = pairs.per_head if g.ndim == 3 else pairs.per_channel
        o, ends, saved = intra(q_c, k_c, v_c, split(g_c, L), split(reset, L))
        first = state.masked_fill(bad_state[..., None, None], 0)
        S, last = _states(ends.dec, (k_c * ends.cout).mT @ v_c, first)
        o += (q_c * ends.cin) @ S
        broken = broken_steps(bad, bad_state, reset)
        broken_o, broken_last = broken | bad_q, broken[:, -1, :, None, None]
        ctx.save_for_backward(reset, broken_o, broken_last, q_c, k_c, v_c, S, last, *ends, *saved)
        ctx.scale, ctx.dtypes, ctx.g_ndim = scale, [x.dtype for x in (q, k, v, g)], g.ndim
        o = _tokens(o, T).masked_fill(broken_o.unsqueeze(-1), torch.nan)
        return o.to(q.dtype), last.masked_fill(broken_last, torch.nan)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Tensor, dlast: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(do.device.type, enabled=False):
            return _backward(ctx, do, dlast)


def _backward(ctx: Any, do: Tensor, dlast: Tensor) -> tuple[Tensor | None, ...]:
    reset, broken_o, broken_last, q, k, v, S, last, *rest = ctx.saved_tensors
    ends, saved = pairs.Ends(*rest[:3]), rest[3:]
    T = reset.shape[1]
    do = _clear(_heads(do, q.shape[3], q.dtype), broken_o)
    dlast = dlast.masked_fill(broken_last, 0)
    back = pairs.per_head_backward if ctx.g_ndim == 3 else pairs.per_channel_backward
    dq, dk, dv = back(do, q, k, v, saved)
    # Backwards through the chunks a state's gradient grows as a state does forwards.
    dS, dfirst = _states(ends.dec.flip(1), ((q * ends.cin).mT @ do).flip(1), dlast)
    dS = dS.flip(1)
    dq.addcmul_(ends.cin, do @ S.mT)
    dk.addcmul_(ends.cout, v @ dS.mT)
    dv += (k * ends.cout) @ dS
    dg = None
    if ctx.needs_input_grad[3]:
        products, final = q * dq - k * dk, (dlast * last).sum(-1)
        if ctx.g_ndim == 3:
            products, final = products.sum(-1, keepdim=True), final.sum(-1, keepdim=True)
        dg = _tokens(_suffix_sums(products, final, split(reset, q.shape[3])), T)
        dg = dg.squeeze(-1) if ctx.g_ndim == 3 else dg
        dg = dg.masked_fill_(reset.view(*reset.shape, *(1,) * (dg.ndim - 2)), 0)
    grads = (_tokens(dq.mul_(ctx.scale), T), _tokens(dk, T), _tokens(dv, T), dg)
    inputs = (None if x is None else x.to(y) for x, y in zip(grads, ctx.dtypes, strict=True))
    return *inputs, None, dfirst, None, None


def _states(dec: Tensor, update: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """Return the states that enter each chunk, `[B, N, H, K, V]`, and the one after the last."""
    states = [first]
    for n in range(update.shape[1]):
        states.append(torch.addcmul(update[:, n], dec[:, n], states[-1]))
    return torch.stack(states[:-1], 1), states[-1]


def _suffix_sums(x: Tensor, final: Tensor, reset: Tensor) -> Tensor:
    """Return the sums of `x [B, N, H, L, C]` from each token to the end of its segment.

    Args:
      x: summands.
      final: what the last segment has after the window, `[B, H, C]`.
      reset: bool `[B, N, L]`.
    """
    seg = reset.cumsum(2)
    first, last, whole = seg == 0, seg == seg[..., -1:], seg[..., -1] == 0
    later = (seg.unsqueeze(-1) == seg.unsqueeze(-2)).triu().unsqueeze(2)
    sums = later.to(x.dtype) @ x
    after = [final]  # what the segment at the end of a chunk has after it
    for n in range(x.shape[1] - 1, 0, -1):
        lead = sums[:, n, :, 0].masked_fill(~first[:, n, :1, None], 0)
        after.append(lead + after[-1] * whole[:, n, None, None])
    return sums.addcmul_(
        last[:, :, None, :, None].to(x.dtype), torch.stack(after[::-1], 1).unsqueeze(3)
    )


def _decays(g: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
    """Return g without broken numbers, and the steps that had some, `[B, T, H]`.

    Minus infinity is none: it forgets everything.
    """
    bad = ~(g < torch.inf) & ~reset.view(*reset.shape, *(1,) * (g.ndim - 2))
    return g.masked_fill(bad, 0), bad if g.ndim == 3 else bad.any(-1)


def _heads(x: Tensor, L: int, dtype: torch.dtype) -> Tensor:
    """Return a copy of `x [B, T, H, D]` in chunks `[B, N, H, L, D]`."""
    x = split(x, L).transpose(2, 3)
    return x.to(dtype, copy=True, memory_format=torch.contiguous_format)


def _tokens(x: Tensor, T: int) -> Tensor:
    """Return chunks `[B, N, H, L, ...]` as `[B, T, H, ...]`."""
    return join(x.transpose(2, 3), T)


def _clear(x: Tensor, where: Tensor) -> Tensor:
    """Set the tokens `where [B, T, H]` of `x [B, N, H, L, D]` to zero, in place."""
    return x.masked_fill_(split(where, x.shape[3]).transpose(2, 3).unsqueeze(-1), 0)
