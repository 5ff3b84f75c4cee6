"""Diagonal linear recurrence with resets.

h_t = where(r_t, 0, a_t h_{t-1}) + x_t
backward:  lam_t = dh_t + where(r_{t+1}, 0, a_{t+1} lam_{t+1});   dx_t = lam_t
           da_t = where(r_t, 0, lam_t h_{t-1});                   dh_0 = where(r_1, 0, a_1 lam_1)
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def scan(a: Tensor, x: Tensor, h0: Tensor, reset: Tensor) -> Tensor:
    """Return the states `h_1 .. h_T`, `[B, T, ...]`.

    Args:
      a: factors `[B, T, ...]`; not read at resets.
      x: inputs, of the shape of `a`.
      h0: the state before the window, `[B, ...]`.
      reset: bool `[B, T]`; after a reset nothing of the earlier state is left, not even NaN.
    """
    h: Tensor = _Scan.apply(a, x, h0, reset)
    return h


class _Scan(torch.autograd.Function):
    """Both directions step by step; time comes first, so that a step's memory is contiguous."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, x: Tensor, h0: Tensor, reset: Tensor) -> Tensor:
        a, x = _time_first(a), _time_first(x)
        mask = reset.t().unflatten(1, (-1, *(1,) * (x.ndim - 2)))
        hs = [h0]
        for a_t, x_t, r_t in zip(a.unbind(), x.unbind(), mask.unbind(), strict=True):
            hs.append(torch.where(r_t, x_t, torch.addcmul(x_t, a_t, hs[-1])))
        h = torch.stack(hs)
        ctx.save_for_backward(a, h, mask)
        return h[1:].transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dh: Tensor) -> tuple[Tensor | None, ...]:
        a, h, mask = ctx.saved_tensors
        a_s, r_s = a.unbind(), mask.unbind()
        # In front the gradient that reaches h_0 from outside: none.
        dhs = (torch.zeros_like(h[0]), *_time_first(dh).unbind())
        lams = [dhs[-1]]
        for t in range(len(a) - 1, -1, -1):
            lams.append(torch.where(r_s[t], dhs[t], torch.addcmul(dhs[t], a_s[t], lams[-1])))
        dh0 = lams.pop()
        lam = torch.stack(lams[::-1])
        da = (lam * h[:-1]).masked_fill(mask, 0)
        return da.transpose(0, 1), lam.transpose(0, 1), dh0, None


def _time_first(x: Tensor) -> Tensor:
    return x.transpose(0, 1).contiguous()
