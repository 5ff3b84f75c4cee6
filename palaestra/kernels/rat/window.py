"""A window of RAT as one function of autograd: averages, rotation, attention, finished chunks.

The formulas are those of average.py and attend.py.
"""

from functools import reduce
from typing import Any

import torch
from torch import Tensor

from palaestra.kernels._common.autograd import by_hand
from palaestra.kernels._common.runtime import acc_dtype, steps
from palaestra.kernels.rat.attend import attend, attend_backward
from palaestra.kernels.rat.average import average, average_backward, buffer, is_aligned
from palaestra.kernels.rat.positions import Places
from palaestra.kernels.rotary import turn, turns


def read(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    run: Tensor,
    ring: Tensor,
    places: Places,
    L: int,
    scale: float,
    base: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Read a window; all numbers have to be finite.

    Args:
      q: queries `[B, T, G, D]`.
      k: keys, of q's shape.
      v: values `[B, T, H, D]`.
      g: gates, of v's shape.
      run: running key beside running value before the window, `[2, B, H, D]`.
      ring: keys beside values of the M - N finished chunks before it, `[2, B, H, M - N, D]`; they
        get no gradient.
      places: what lies where.
      L: steps of a chunk.
      scale: factor of the scores.
      base: base of the rotary positions.

    Returns:
      `o [B, T, H, D]`, and `run` and `ring [2, B, H, C, D]` after the window.
    """
    result: tuple[Tensor, Tensor, Tensor]
    result = _Window.apply(q, k, v, g, run, ring, places, L, scale, base)
    return result


class _Window(torch.autograd.Function):
    """Outputs `o [B, T, H, D]`, and `run [2, B, H, D]` and `ring [2, B, H, C, D]` afterwards."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        g: Tensor,
        run: Tensor,
        ring: Tensor,
        places: Places,
        L: int,
        scale: float,
        base: float | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        (B, T, H, D), G, dtype, acc = v.shape, q.shape[2], q.dtype, acc_dtype(q.dtype)
        continues, chunk, end, hidden, source, _ = places
        M, N = hidden.shape[1], end.shape[1]
        C = M - N
        ctx.set_materialize_grads(False)
        ctx.types = [x.dtype for x in (q, k, v, g)]
        q_h, k_h = tile(q, H).to(acc), tile(k, H).to(acc)
        v, g, continues = v.to(acc), g.to(acc), continues.to(acc)[:, :, None, None]
        aligned = is_aligned(continues, L)
        h, a = average(k_h, v, g, run, continues, L, aligned)

        rows = steps(B, q.device).unsqueeze(1)
        end = end.clamp(max=T - 1)
        ended = _take(h, rows, end + 1)  # (2, B, N, H, D)
        at, at_end = (turns(c, n, D, base, acc) for c, n in ((chunk, G), (chunk.gather(1, end), H)))
        ended[0] = turn(ended[0], at_end)
        q_rot = tile(turn(q_h[:, :, :G], at), H).transpose(1, 2).reshape(B * H, T, D)
        finished = h.new_zeros(2, B, M + 1, H, D)
        if C:
            finished[:, :, :C] = ring.transpose(2, 3)
        finished[:, :, C:M] = ended
        slots = _take(finished, rows, source).transpose(2, 3).to(dtype)
        own = h[:, :, 1 : T + 1]
        if dtype != acc:
            q_rot, own, finished = (x.to(dtype).to(acc) for x in (q_rot, own, finished))
        keys, values = finished.transpose(2, 3).reshape(2, B * H, M + 1, D)
        o, P = attend(q_h, q_rot, own, keys, values, hidden, scale)
        ctx.rest = G, C, L, aligned, scale
        ctx.save_for_backward(
            *(q_h, k_h, v, g, continues, h, a, own, q_rot, keys, values, P),
            *(rows, end, source),
            *(at or ()),
            *(at_end or ()),
        )
        return o.to(dtype), h[:, :, T].clone(), slots.contiguous()

    @staticmethod
    @by_hand
    def backward(
        ctx: Any, do: Tensor | None, drun: Tensor | None, dring: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        q, k, v, g, continues, h, a, own, q_rot, keys, values, P, *rest = ctx.saved_tensors
        rows, end, source, *factors = rest
        at, at_end = (factors[:2], factors[2:]) if factors else (None, None)
        (G, C, L, aligned, scale), (B, T, H, D) = ctx.rest, v.shape

        lam = buffer(v, L)
        do = torch.zeros_like(v) if do is None else do.to(v.dtype)
        dq, dq_rot, dkeys, dvalues = attend_backward(
            do, q, q_rot, own, keys, values, P, scale, lam[:, :, 1 : T + 1]
        )
        dy = _summed(dq_rot.view(B, H, T, D), 1, G).transpose(1, 2)
        dq = _summed(dq, 2, G)
        dq += turn(dy, at, -1)
        d_finished = torch.stack([dkeys, dvalues]).view(2, B, H, -1, D).transpose(2, 3).contiguous()
        if dring is not None:
            _put(d_finished, rows, source, dring.transpose(2, 3).to(v.dtype))
        d_ended = d_finished[:, :, C:-1].contiguous()
        d_ended[0] = turn(d_ended[0], at_end, -1)
        _put(lam, rows, end + 1, d_ended)
        if drun is not None:
            lam[:, :, T] += drun
        dx, dg, drun = average_backward(lam, k, v, g, continues, L, aligned, h, a)
        found = dq, _summed(dx[0], 2, G), dx[1], dg
        grads = [x.to(dtype) for x, dtype in zip(found, ctx.types, strict=True)]
        return *grads, drun, None, None, None, None, None


def tile(x: Tensor, heads: int) -> Tensor:
    """Repeat the groups of `x [..., G, D]`: head h takes group h mod G."""
    return x if x.shape[-2] == heads else torch.cat([x] * (heads // x.shape[-2]), -2)


def _summed(x: Tensor, dim: int, groups: int) -> Tensor:
    """Sum over the heads of each group."""
    return reduce(torch.add, x.split(groups, dim))


def _take(x: Tensor, rows: Tensor, index: Tensor) -> Tensor:
    """Return the entries of `x [2, B, T, H, D]` at the times `[B, N]`."""
    _, B, T, H, D = x.shape
    index = (rows * T + index).view(-1)
    return x.view(2, B * T, H * D).index_select(1, index).view(2, B, -1, H, D)


def _put(x: Tensor, rows: Tensor, index: Tensor, new: Tensor) -> None:
    """Add `new [2, B, N, H, D]` to the entries of x at the times `[B, N]`."""
    _, B, T, H, D = x.shape
    index = (rows * T + index).view(-1)
    x.view(2, B * T, H * D).index_add_(1, index, new.reshape(2, -1, H * D))
