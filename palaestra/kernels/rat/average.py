"""The gated average of keys and values within a chunk, both directions.

h_t = a_t h_{t-1} + (1 - g_t) x_t              a_t = g_t, or 0 at the first step of a chunk
backward:  lam_t = dh_t + a_{t+1} lam_{t+1};   dx_t = (1 - g_t) lam_t;   dh_0 = a_1 lam_1
           dg_t = lam_t ([a chunk continues] h_{t-1} - x_t)

The window is cut into S blocks of L steps. Any L steps in a row hold the first step of a chunk,
resets or not, so that the average at the end of a block does not depend on what came before the
block: a pass over all blocks at once finds their ends, a second one starts each block from the end
of its predecessor. Backward alike. All numbers have to be finite.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from palaestra.kernels._common.runtime import asking_is_free


def buffer(like: Tensor, L: int) -> Tensor:
    """Return memory `[2, B, 1 + S * L, H, D]` for whole blocks, zero after `like [B, T, H, D]`.

    Step 0 lies before the window.
    """
    B, T, H, D = like.shape
    S, length = _blocks(T, L)
    x = like.new_empty(2, B, 1 + S * length, H, D)
    if S * length > T:
        x[:, :, 1 + T :].zero_()
    return x


def write_product(out: Tensor, x: Tensor, y: Tensor) -> None:
    """Write `x y` to `out`, any view."""
    if torch.compiler.is_compiling():  # a compiler takes no strided output
        out.copy_(x * y)
    else:
        torch.mul(x, y, out=out)


def is_aligned(continues: Tensor, L: int) -> bool:
    """Whether each block is known to begin with a chunk, or there is one block alone."""
    S, length = _blocks(continues.shape[1], L)
    return S == 1 or (asking_is_free(continues) and not continues[:, ::length].any())


def average(
    k: Tensor, v: Tensor, g: Tensor, h_0: Tensor, continues: Tensor, L: int, aligned: bool
) -> tuple[Tensor, Tensor]:
    """Return running keys beside values `h [2, B, 1 + S * L, H, D]`, and `a [B, S * L, H, D]`.

    Args:
      k: keys `[B, T, H, D]`.
      v: values, of k's shape.
      g: how much of the average so far is kept, of k's shape.
      h_0: key beside value before the window, `[2, B, H, D]`.
      continues: `[B, T, 1, 1]`, 0 where a chunk begins, else 1.
      L: steps of a chunk.
      aligned: whether each block begins with a chunk, which makes the first pass superfluous.
    """
    (B, T, H, D), h, gain = k.shape, buffer(k, L), 1 - g
    h[:, :, 0] = h_0
    h_k, h_v = h[:, :, 1 : T + 1]
    write_product(h_k, gain, k)
    write_product(h_v, gain, v)
    a = g * continues
    rest = h.shape[2] - 1 - T
    if rest:
        a = torch.cat([a, a.new_zeros(B, rest, H, D)], 1)
    h_s, a_s = _split(h[:, :, 1:], T, L), _split(a, T, L)
    h_t = h[:, :, :1]
    if not aligned:
        h_t = torch.cat([h_t, _last(h_s, a_s[1:])[:, :, :-1]], 2)
    for x_t, a_t in zip(h_s, a_s, strict=True):
        h_t = x_t.addcmul_(a_t, h_t)
    return h, a


def average_backward(
    dh: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    continues: Tensor,
    L: int,
    aligned: bool,
    h: Tensor,
    a: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of k beside v, of g and of h_0; that of h is overwritten."""
    T = k.shape[1]
    lam_s, a_s = _split(dh[:, :, 1:], T, L)[::-1], _split(a, T, L)
    back = a_s[:0:-1]
    if not aligned:
        begins = _last(lam_s, back)
        lam_s[0][:, :, :-1].addcmul_(a_s[0][:, 1:], begins[:, :, 1:])
    lam_t = lam_s[0]
    for dh_t, a_t in zip(lam_s[1:], back, strict=True):
        lam_t = dh_t.addcmul_(a_t, lam_t)

    lam, (before_k, before_v) = dh[:, :, 1 : T + 1], h[:, :, :T]
    dg = (lam[0] * before_k).addcmul_(lam[1], before_v).mul_(continues)
    dg.addcmul_(lam[0], k, value=-1).addcmul_(lam[1], v, value=-1)
    return (1 - g) * lam, dg, a[:, 0] * lam[:, :, 0]


def _blocks(T: int, L: int) -> tuple[int, int]:
    """Return number and length of the blocks."""
    return -(-T // L), min(T, L)


def _split(x: Tensor, T: int, L: int) -> tuple[Tensor, ...]:
    """Return the l-th steps of all blocks in `x [..., S * L, H, D]`, for each l."""
    return x.unflatten(-3, _blocks(T, L)).unbind(-3)


def _last(x_s: Sequence[Tensor], a_s: Sequence[Tensor]) -> Tensor:
    """Return the last of `h_t = a_t h_{t-1} + x_t` with `h_1 = x_1`, given a_2, a_3, ..."""
    h = x_s[0]
    for x_t, a_t in zip(x_s[1:], a_s, strict=True):
        h = torch.addcmul(x_t, a_t, h)
    return h
