"""Attention of every step to finished chunks and to the open one, both directions.

S = scale [keys q_rot | k_own q];   P = softmax S;   o = P [values | v_own]
backward:  dP = do [values | v_own]^T;   dS = scale P (dP - sum P dP)
           dq_rot = dS keys;   dkeys = dS^T q_rot;   dvalues = P^T do

Time comes last in S, so that the softmax over a few chunks goes through memory in order. The last
of the M + 1 keys and values is zero: its place in S and P is that of the open chunk, whose products
of one query with one key are no matrix products. All numbers have to be finite.
"""

import torch
from torch import Tensor

from palaestra.kernels.rat.average import write_product


def attend(
    q: Tensor,
    q_rot: Tensor,
    own: Tensor,
    keys: Tensor,
    values: Tensor,
    hidden: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Return `o [B, T, H, D]` and `P [B * H, M + 1, T]`.

    Args:
      q: queries `[B, T, H, D]`.
      q_rot: turned, `[B * H, T, D]`.
      own: key beside value of the open chunk `[2, B, T, H, D]`.
      keys: turned keys of finished chunks `[B * H, M + 1, D]`.
      values: their values.
      hidden: which of them a step does not see, `[B, M, T]`.
      scale: factor of the scores.
    """
    (B, T, H, D), (k_own, v_own) = q.shape, own
    S = torch.bmm(keys, q_rot.mT)
    S_h = S.view(B, H, -1, T)
    S_h[:, :, :-1].masked_fill_(hidden.unsqueeze(1), -torch.inf)
    S_h[:, :, -1] = (q * k_own).sum(3).transpose(1, 2)
    P = S.mul_(scale).softmax(1)
    inter = torch.bmm(P.mT, values).view(B, H, T, D).transpose(1, 2)
    return torch.addcmul(inter, _own(P, B), v_own, out=torch.empty_like(q)), P


def attend_backward(
    do: Tensor,
    q: Tensor,
    q_rot: Tensor,
    own: Tensor,
    keys: Tensor,
    values: Tensor,
    P: Tensor,
    scale: float,
    d_own: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of q, q_rot, keys and values; write that of `own` to `d_own`."""
    B, (k_own, v_own) = len(q), own
    do_h = do.transpose(1, 2).reshape_as(q_rot)
    dP = torch.bmm(values, do_h.mT)
    _own(dP, B).copy_((do * v_own).sum(3, keepdim=True))
    dS = torch.ops.aten._softmax_backward_data(dP, P, 1, P.dtype).mul_(scale)
    dS_own = _own(dS, B)
    write_product(d_own[0], dS_own, q)
    write_product(d_own[1], _own(P, B), do)
    return dS_own * k_own, torch.bmm(dS.mT, keys), torch.bmm(dS, q_rot), torch.bmm(P, do_h)


def _own(P: Tensor, B: int) -> Tensor:
    """Return the entries of the open chunk, a view `[B, T, H, 1]`."""
    return P[:, -1].unflatten(0, (B, -1)).transpose(1, 2).unsqueeze(3)
