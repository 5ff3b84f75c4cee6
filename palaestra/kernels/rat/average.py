"""The gated average of keys and values within a chunk, over a window.

h_t = g_t where(first_t, 0, h_{t-1}) + (1 - g_t) x_t
backward:  lam_t = dh_t + where(first_{t+1}, 0, g_{t+1} lam_{t+1});   dx_t = (1 - g_t) lam_t
           dg_t = lam_t (where(first_t, 0, h_{t-1}) - x_t);   dh_0 = where(first_1, 0, g_1 lam_1)
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def average(
    k: Tensor, v: Tensor, g: Tensor, k_0: Tensor, v_0: Tensor, first: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the running keys and values of every step, `[B, T, H, D]` each.

    It looks at the values of `first`, for which one would have to wait on a GPU.

    Args:
      k: keys `[B, T, H, D]`.
      v: values, of k's shape.
      g: how much of the average so far is kept, of k's shape.
      k_0: the key before the window, `[B, H, D]`.
      v_0: its value.
      first: bool `[B, T]`; nothing before such a step is left, not even NaN.
    """
    runs = _runs(first)
    h_0 = torch.stack([k_0, v_0], 1).masked_fill(first[:, 0, None, None, None], 0)
    flat = (x.flatten(0, 1) for x in (k, v, g))
    k_run, v_run = _Average.apply(*flat, h_0, runs)
    return k_run.view_as(k), v_run.view_as(v)


class _Runs(NamedTuple):
    """The window cut into pieces that lie in one chunk each.

    All first steps of the pieces come first, then all second ones, and so on; the pieces are in
    order of their length, so that those which go on are the first ones.
    """

    sizes: list[int]
    """How many pieces have a first step, a second one, ..."""
    order: Tensor
    """`[B * T]`, the steps in this order."""
    place: Tensor
    """`[B * T]`, the place of each step in it."""
    row: Tensor
    """`[B]`, the place of the first step of each row of the window."""


def _runs(first: Tensor) -> _Runs:
    begins = first.clone()
    begins[:, 0] = True
    run = begins.flatten().cumsum(0) - 1
    starts = begins.flatten().nonzero()[:, 0]
    inside = torch.arange(len(run), device=run.device) - starts[run]
    sizes = inside.bincount()  # of the steps that are first in a piece, second, ...
    rank = run.bincount().argsort(descending=True, stable=True).argsort()
    place = (sizes.cumsum(0) - sizes)[inside] + rank[run]
    return _Runs(sizes.tolist(), place.argsort(), place, place[:: first.shape[1]])


class _Average(torch.autograd.Function):
    """Both directions step by step, all pieces at once, keys beside values."""

    @staticmethod
    def forward(
        ctx: Any, k: Tensor, v: Tensor, g: Tensor, h_0: Tensor, runs: _Runs
    ) -> tuple[Tensor, Tensor]:
        x, g = torch.stack([k, v], 1)[runs.order], g.unsqueeze(1)[runs.order]
        begin = x.new_zeros(runs.sizes[0], *x.shape[1:]).index_copy_(0, runs.row, h_0)
        h, h_tm1 = torch.empty_like(x), begin
        for x_t, g_t, h_t in zip(*(y.split(runs.sizes) for y in (x, g, h)), strict=True):
            torch.lerp(x_t, h_tm1[: len(x_t)], g_t, out=h_t)
            h_tm1 = h_t
        ctx.save_for_backward(x, g, h, begin)
        ctx.runs = runs
        h = h[runs.place]
        return h[:, 0], h[:, 1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dk: Tensor, dv: Tensor) -> tuple[Tensor | None, ...]:
        (x, g, h, begin), runs = ctx.saved_tensors, ctx.runs
        lam = torch.stack([dk, dv], 1)[runs.order]
        lams, gs, hs = (y.split(runs.sizes) for y in (lam, g, h))
        for t in range(len(lams) - 1, 0, -1):
            lams[t - 1][: len(lams[t])].addcmul_(gs[t], lams[t])
        after = runs.sizes[1:]
        before = [begin, *(h_t[:n] for h_t, n in zip(hs, after, strict=False))]
        dg = ((torch.cat(before) - x) * lam).sum(1)[runs.place]
        dx = torch.addcmul(lam, g, lam, value=-1)[runs.place]
        return dx[:, 0], dx[:, 1], dg, (gs[0] * lams[0])[runs.row], None
