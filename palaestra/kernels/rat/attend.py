"""Attention of every step to finished chunks and to the open one, both directions by hand.

S = scale [keys q | own];   P = softmax S;   o = P [values | v_own]
backward:  dP = do [values | v_own]^T;   dS = scale P (dP - sum P dP)

Time comes last in S, so that the softmax over a few chunks goes through memory in order.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def attend(
    q: Tensor, own: Tensor, v_own: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float
) -> Tensor:
    """Return `o [B, T, H, D]`; all numbers have to be finite.

    Args:
      q: rotated queries `[B, T, H, D]`.
      own: products of query and key of the open chunk `[B, T, H]`.
      v_own: values of the open chunk `[B, T, H, D]`.
      keys: rotated keys of finished chunks `[B, H, M, D]`.
      values: their values.
      mask: which of them each step sees, `[B, T, M]`.
      scale: factor of the scores.
    """
    o: Tensor = _Attend.apply(q, own, v_own, keys, values, mask, scale)
    return o


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        own: Tensor,
        v_own: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor,
        scale: float,
    ) -> Tensor:
        M = keys.shape[2]
        inter = keys @ q.permute(0, 2, 3, 1)
        inter.masked_fill_(~mask.transpose(1, 2).unsqueeze(1), -torch.inf)
        own = own.transpose(1, 2).unsqueeze(2)
        P = torch.cat([inter, own], 2).mul_(scale).softmax(2)  # (B, H, M + 1, T)
        o = P[:, :, :M].transpose(2, 3) @ values
        o.addcmul_(P[:, :, M].unsqueeze(3), v_own.transpose(1, 2))
        ctx.save_for_backward(q, v_own, keys, values, P)
        ctx.scale = scale
        return o.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:
        q, v_own, keys, values, P = ctx.saved_tensors
        P_own = P[:, :, -1].transpose(1, 2).unsqueeze(3)  # (B, T, H, 1)
        own = (do * v_own).sum(3).transpose(1, 2).unsqueeze(2)
        do_h = do.transpose(1, 2).contiguous()  # (B, H, T, D)
        dP = torch.cat([values @ do_h.transpose(2, 3), own], 2)
        dS = P * (dP - (P * dP).sum(2, keepdim=True)) * ctx.scale
        P, dS, dS_own = P[:, :, :-1], dS[:, :, :-1], dS[:, :, -1]
        return (
            (dS.transpose(2, 3) @ keys).transpose(1, 2),
            dS_own.transpose(1, 2),
            P_own * do,
            dS @ q.transpose(1, 2),
            P @ do_h,
            None,
            None,
        )
