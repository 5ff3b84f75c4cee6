"""What the tokens of one chunk give each other, for one decay per head and for one per channel.

Tensors are `[B, N, H, L, D]`; queries come scaled. Each form returns its outputs, the factors at
the ends of the chunk and what its backward needs.
"""

from typing import NamedTuple

from torch import Tensor

from palaestra.kernels._common.chunk import decay, leaves, merge


class Ends(NamedTuple):
    """Factors at the ends of a chunk; C is 1 or, per channel, K."""

    cin: Tensor
    """Carried state, seen at a token, `[B, N, H, L, C]`."""
    cout: Tensor
    """Token, in the state after the chunk, `[B, N, H, L, C]`."""
    dec: Tensor
    """Carried state, after the chunk, `[B, N, H, C, 1]`."""


def per_head(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, reset: Tensor
) -> tuple[Tensor, Ends, list[Tensor]]:
    """P = (Q K^T) * D;   O = P V."""
    D, cin, cout, dec = decay(g, reset)
    P = (q @ k.mT).mul_(D)
    ends = Ends(cin.unsqueeze(-1), cout.unsqueeze(-1), dec[..., None, None])
    return P @ v, ends, [D, P]


def per_head_backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, saved: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """With dA = (dO V^T) * D:  dQ = dA K;   dK = dA^T Q;   dV = P^T dO."""
    D, P = saved
    dA = (do @ v.mT).mul_(D)
    return dA @ k, dA.mT @ q, P.mT @ do


def per_channel(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, reset: Tensor
) -> tuple[Tensor, Ends, list[Tensor]]:
    """A = (Q * before) (K * after)^T between the halves of every block, of 2, 4 .. L tokens.

    The factors lie between 0 and 1 whatever the decay is; the token itself needs none.
    """
    o = (q * k).sum(-1, keepdim=True) * v
    blocks, saved = leaves(g, reset), []
    while blocks.before.shape[3] > 1:
        lower, upper, blocks = merge(blocks)
        b = lower.after.shape[4]
        A = _scores(_half(q, b, 1) * upper.before, _half(k, b, 0) * lower.after)
        _half(o, b, 1).add_(_times(A, _half(v, b, 0)))
        saved += [A, upper.before, lower.after]
    cin, cout = (x.squeeze(3) for x in blocks)
    return o, Ends(cin, cout, cin[..., -1, :].unsqueeze(-1)), saved


def per_channel_backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, saved: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """The same halves: dA = dO V^T, then as in any product, each factor once more."""
    dA_self = (do * v).sum(-1, keepdim=True)
    dq, dk = dA_self * k, dA_self * q
    dv = (q * k).sum(-1, keepdim=True) * do
    for A, before, after in zip(saved[::3], saved[1::3], saved[2::3], strict=True):
        b = A.shape[-1]
        do_1 = _half(do, b, 1)
        dA = _scores(do_1, _half(v, b, 0))
        _half(dq, b, 1).addcmul_(_times(dA, _half(k, b, 0) * after), before)
        _half(dk, b, 0).addcmul_(_times(dA.mT, _half(q, b, 1) * before), after)
        _half(dv, b, 0).add_(_times(A.mT, do_1))
    return dq, dk, dv


def _scores(x: Tensor, y: Tensor) -> Tensor:
    """Return X Y^T; tiny products are faster by hand."""
    return (x * y).sum(-1, keepdim=True) if x.shape[-2] == 1 else x @ y.mT


def _times(A: Tensor, x: Tensor) -> Tensor:
    return A * x if x.shape[-2] == 1 else A @ x


def _half(x: Tensor, b: int, half: int) -> Tensor:
    """Return the lower (0) or upper (1) halves of the blocks of 2b tokens, a view."""
    return x.unflatten(3, (-1, 2, b)).select(4, half)
