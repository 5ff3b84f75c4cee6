"""Gated linear attention in chunks, both directions written by hand: the path on CPU.

With Q scaled, for all chunks at once but the last line:

    O = (cin Q) S + what the chunk's tokens give each other
    S' = dec S + (cout K)^T V
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from palaestra.kernels._common.autograd import by_hand
from palaestra.kernels._common.chunk import add_product, join, split
from palaestra.kernels._common.nonfinite import nonfinite, nonfinite_reach
from palaestra.kernels._common.runtime import asking_is_free
from palaestra.kernels.gla import pairs

_BLOCK = 131072
"""Numbers of one input in a block of rows."""

_LONGEST = 32
"""Tokens of a chunk with a decay per channel: each doubling costs another pass over them."""


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
    """A block of rows after the other, so that its tensors stay in a core's cache."""

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
        longest = chunk_size if g.ndim == 3 else min(chunk_size, _LONGEST)
        L = min(longest, max(16, 1 << (q.shape[1] - 1).bit_length()))
        o, last, saved = torch.empty_like(v), torch.empty_like(state), []
        for rows in _blocks(q):
            o[rows], last[rows], kept = _forward(
                q[rows], k[rows], v[rows], g[rows], reset[rows], state[rows], scale, L
            )
            saved += kept
        ctx.save_for_backward(reset, *saved)
        ctx.scale, ctx.inputs = scale, [(x.shape, x.dtype) for x in (q, k, v, g)]
        return o, last

    @staticmethod
    @by_hand
    def backward(ctx: Any, do: Tensor, dlast: Tensor) -> tuple[Tensor | None, ...]:
        reset, *saved = ctx.saved_tensors
        dq, dk, dv, dg = (do.new_empty(shape, dtype=dtype) for shape, dtype in ctx.inputs)
        dfirst, blocks = torch.empty_like(dlast), _blocks(dq)
        each, learns = len(saved) // len(blocks), ctx.needs_input_grad[3]
        for i, rows in enumerate(blocks):
            kept, window = saved[i * each :][:each], (reset[rows], do[rows], dlast[rows])
            dq[rows], dk[rows], dv[rows], dg_b, dfirst[rows] = _backward(
                *window, kept, ctx.scale, dg.ndim, learns
            )
            if dg_b is not None:
                dg[rows] = dg_b
        return dq, dk, dv, dg if learns else None, None, dfirst, None, None


def _blocks(q: Tensor) -> list[slice]:
    """Return slices of rows; all rows at once elsewhere than on CPU."""
    size = max(1, _BLOCK // q[0].numel()) if asking_is_free(q) else max(1, len(q))
    return [slice(b, b + size) for b in range(0, len(q), size)]


def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    reset: Tensor,
    state: Tensor,
    scale: float,
    L: int,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return outputs, the final state and what the other direction needs."""
    T, dtype, per_head = q.shape[1], state.dtype, g.ndim == 3
    q, k, v = (_heads(x, L, dtype) for x in (q, k, v))
    g = g.to(dtype)
    bad_g = ~((g if per_head else g.amax(-1)) <= 0) & ~reset.unsqueeze(-1)
    bad_q, bad = _tokens(nonfinite(q), T), _tokens(nonfinite(k, v), T) | bad_g
    bad_state = nonfinite(state.flatten(2))
    reached = nonfinite_reach(bad, bad_state, reset)
    nan_o, nan_last = (reached | bad_q).unsqueeze(-1), reached[:, -1, :, None, None]
    clean = asking_is_free(q) and not (nan_o.any() or bad_state.any())
    if not clean:
        q, k, v = _clear(q, bad_q), _clear(k, bad), _clear(v, bad)
        g = g.masked_fill(bad if per_head else bad.unsqueeze(-1), 0)
        state = state.masked_fill(bad_state[..., None, None], 0)
    intra = pairs.per_head if per_head else pairs.per_channel
    g, chunks = split(g, L).transpose(0, 1), split(reset, L).transpose(0, 1)
    o, ends, saved = intra(q.mul_(scale), k, v, g, chunks)
    S = _states(ends.dec, ends.k_out.mT @ v, state)
    add_product(o, ends.q_in, S[:-1])
    kept = [nan_o, nan_last, q, k, v, S, *ends, *saved]
    o, last = _tokens(o, T), S[-1]
    if not clean:
        o, last = o.masked_fill(nan_o, torch.nan), last.masked_fill(nan_last, torch.nan)
    return o, last, kept


def _backward(
    reset: Tensor,
    do: Tensor,
    dlast: Tensor,
    kept: list[Tensor],
    scale: float,
    g_ndim: int,
    learns: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
    """Return the gradients of q, k, v, of g where it `learns`, and of the state."""
    nan_o, nan_last, q, k, v, S, *rest = kept
    ends, saved, T = pairs.Ends(*rest[:3]), rest[3:], reset.shape[1]
    do = _heads(do, q.shape[3], q.dtype)
    if not asking_is_free(do) or nan_o.any():
        do = _clear(do, nan_o.squeeze(-1))
        dlast = dlast.masked_fill(nan_last, 0)
    dS = _states(ends.dec, ends.q_in.mT @ do, dlast, backward=True)
    back = pairs.per_head_backward if g_ndim == 3 else pairs.per_channel_backward
    outer = do @ S[:-1].mT, v @ dS[1:].mT, ends.k_out @ dS[1:]
    dq, dk, dv = back(do, q, k, v, outer, saved)
    dg = None
    if learns:
        products, final = (q * dq).addcmul_(k, dk, value=-1), (dlast * S[-1]).sum(-1)
        if g_ndim == 3:
            products, final = products.sum(-1, keepdim=True), final.sum(-1, keepdim=True)
        dg = _tokens(_suffix_sums(products, final, split(reset, q.shape[3]).transpose(0, 1)), T)
        dg = dg.squeeze(-1) if g_ndim == 3 else dg
        dg = dg.masked_fill(reset.view(*reset.shape, *(1,) * (dg.ndim - 2)), 0)
    return _tokens(dq.mul_(scale), T), _tokens(dk, T), _tokens(dv, T), dg, dS[0]


def _states(dec: Tensor, new: Tensor, first: Tensor, *, backward: bool = False) -> Tensor:
    """Return the states around the chunks, `[N + 1, B, H, K, V]`, S <- dec S + new.

    With `backward` the first one is that after the last chunk: so their gradients grow.
    """
    N = len(new)
    states = new.new_empty(N + 1, *first.shape)
    states[N if backward else 0] = first
    for n in reversed(range(N)) if backward else range(N):
        source, target = (n + 1, n) if backward else (n, n + 1)
        states[target] = torch.addcmul(new[n], dec[n], states[source])
    return states


def _suffix_sums(x: Tensor, final: Tensor, reset: Tensor) -> Tensor:
    """Return the sums of `x [N, B, H, L, C]` from each token to the end of its segment.

    Args:
      x: summands.
      final: what the last segment has after the window, `[B, H, C]`.
      reset: bool `[N, B, L]`.
    """
    seg = reset.cumsum(2)
    first, last, whole = seg == 0, seg == seg[..., -1:], seg[..., -1] == 0
    later = (seg.unsqueeze(-1) == seg.unsqueeze(-2)).triu().unsqueeze(2)
    sums = later.to(x.dtype) @ x
    after = [final]  # what the segment at the end of a chunk has after it
    for n in range(len(x) - 1, 0, -1):
        lead = sums[n, :, :, 0].masked_fill(~first[n, :, :1, None], 0)
        after.append(lead + after[-1] * whole[n, :, None, None])
    return sums.addcmul_(
        last[:, :, None, :, None].to(x.dtype), torch.stack(after[::-1]).unsqueeze(3)
    )


def _heads(x: Tensor, L: int, dtype: torch.dtype) -> Tensor:
    """Return a copy of `x [B, T, H, D]` in chunks `[N, B, H, L, D]`."""
    x = split(x, L).permute(1, 0, 3, 2, 4)
    return x.to(dtype, copy=True, memory_format=torch.contiguous_format)


def _tokens(x: Tensor, T: int) -> Tensor:
    """Return chunks `[N, B, H, L, ...]` as `[B, T, H, ...]`."""
    return join(x.transpose(0, 1).transpose(2, 3), T)


def _clear(x: Tensor, where: Tensor) -> Tensor:
    """Set the tokens `where [B, T, H]` of `x [N, B, H, L, D]` to zero, in place."""
    return x.masked_fill_(split(where, x.shape[3]).permute(1, 0, 3, 2).unsqueeze(-1), 0)
