"""What the tokens of one chunk give each other, for one decay per head and for one per channel.

Tensors are `[N, B, H, L, D]`; queries come scaled. Each form returns its outputs, what connects the
chunk with the states around it, and what its backward needs. Its backward is given the gradients of
`Ends.q_in`, of `Ends.k_out` and, from outside the chunk, of the values; it writes into them.
"""

from typing import NamedTuple

from torch import Tensor

from palaestra.kernels._common.chunk import add_product, decay, leaves

Gradients = tuple[Tensor, Tensor, Tensor]
"""Of queries, keys and values."""


class Ends(NamedTuple):
    """What connects a chunk with the states around it; C is 1 or, per channel, K."""

    q_in: Tensor
    """cin Q, which reads the carried state, `[N, B, H, L, K]`."""
    k_out: Tensor
    """cout K, which writes the state after the chunk, `[N, B, H, L, K]`."""
    dec: Tensor
    """Carried state, after the chunk, `[N, B, H, C, 1]`."""


def per_head(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, reset: Tensor
) -> tuple[Tensor, Ends, list[Tensor]]:
    """P = (Q K^T) * D;   O = P V."""
    D, cin, cout, dec = decay(g, reset)
    cin, cout = cin.unsqueeze(-1), cout.unsqueeze(-1)
    P = (q @ k.mT).mul_(D)
    return P @ v, Ends(cin * q, cout * k, dec[..., None, None]), [D, cin, cout, P]


def per_head_backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, given: Gradients, saved: list[Tensor]
) -> Gradients:
    """With dA = (dO V^T) * D:  dQ = dA K;   dK = dA^T Q;   dV = P^T dO."""
    dq, dk, dv = given
    D, cin, cout, P = saved
    dA = (do @ v.mT).mul_(D)
    add_product(dq.mul_(cin), dA, k)
    add_product(dk.mul_(cout), dA.mT, q)
    add_product(dv, P.mT, do)
    return dq, dk, dv


def per_channel(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, reset: Tensor
) -> tuple[Tensor, Ends, list[Tensor]]:
    """A = (Q * before) (K * after)^T between the halves of every block, of 2, 4 .. L tokens.

    `before` is what is left between the halves' border and the query, `after` between the key and
    the border. As blocks merge, queries of the upper half take up the decay of the lower one, and
    keys of the lower half that of the upper one. The factors lie between 0 and 1 whatever the decay
    is; the token itself needs none.
    """
    o = (q * k).sum(-1, keepdim=True) * v
    a = dec = leaves(g, reset).before.squeeze(4)
    q_in, k_out, saved, b = q * a, k.clone(), [a], 1
    while b < q.shape[3]:
        d_0, d_1 = dec.view(-1, 2, dec.shape[-1]).split(1, 1)
        q_1, k_0 = _half(q_in, b, 1), _half(k_out, b, 0)
        q_before, k_after = q_1.clone(), k_0.clone()
        A = _scores(q_before, k_after)
        _half(o, b, 1).add_(_times(A, _half(v, b, 0)))
        saved += [A, q_before, k_after, d_0, d_1]
        q_1.mul_(d_0)
        k_0.mul_(d_1)
        dec, b = d_0 * d_1, 2 * b
    return o, Ends(q_in, k_out, dec.view(*q.shape[:3], -1, 1)), saved


def per_channel_backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, given: Gradients, saved: list[Tensor]
) -> Gradients:
    """The same blocks from the largest on: dA = dO V^T, then as in any product."""
    dq, dk, dv = given
    a, *levels = saved
    while levels:
        *levels, A, q_before, k_after, d_0, d_1 = levels
        b = A.shape[-1]
        do_1 = _half(do, b, 1)
        dA = _scores(do_1, _half(v, b, 0))
        _half(dq, b, 1).mul_(d_0).add_(_times(dA, k_after))
        _half(dk, b, 0).mul_(d_1).add_(_times(dA.mT, q_before))
        _half(dv, b, 0).add_(_times(A.mT, do_1))
    dA_self = (do * v).sum(-1, keepdim=True)
    dq.mul_(a).addcmul_(dA_self, k)
    dk.addcmul_(dA_self, q)
    dv.addcmul_((q * k).sum(-1, keepdim=True), do)
    return dq, dk, dv


def _half(x: Tensor, b: int, half: int) -> Tensor:
    """Return the lower (0) or upper (1) halves of the blocks of 2b tokens, a view `[.., b, D]`."""
    return x.view(-1, 2, b, x.shape[-1]).select(1, half)


def _scores(x: Tensor, y: Tensor) -> Tensor:
    """Return X Y^T; tiny products are faster by hand."""
    return (x * y).sum(-1, keepdim=True) if x.shape[1] == 1 else x.bmm(y.mT)


def _times(A: Tensor, x: Tensor) -> Tensor:
    return A * x if x.shape[1] == 1 else A.bmm(x)
