"""Chunks of a window, and how much of a token is left at another when decay and resets act.

With a_t = where(r_t, 0, exp(g_t)) inside a chunk of L tokens:

    D_ij   = a_{j+1} .. a_i for j <= i, else 0     token j, seen at token i
    cin_i  = a_1 .. a_i                            the carried state, seen at token i
    cout_i = a_{i+1} .. a_L                        token i, in the state after the chunk
    dec    = a_1 .. a_L                            the carried state, after the chunk

The products are taken in a tree: two neighbouring blocks of b tokens make one of 2b. A reset is a
factor of exactly 0; sums of g and their differences, which lose digits after strong decay and give
NaN at minus infinity, do not occur.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad


class Decay(NamedTuple):
    """What is left of tokens and states; heads stand before tokens, as in batched products.

    Masked entries are exactly 0.
    """

    D: Tensor
    """`[B, N, H, L, L]`."""
    cin: Tensor
    """`[B, N, H, L]`."""
    cout: Tensor
    """`[B, N, H, L]`."""
    dec: Tensor
    """`[B, N, H]`."""


class Blocks(NamedTuple):
    """Products inside blocks of b tokens, `[B, N, H, P, b]` or `[B, N, H, P, b, K]`."""

    before: Tensor
    """From the first token of the block to this one, both included: cin of the block."""
    after: Tensor
    """From the next token to the last one of the block: cout of the block."""


def split(x: Tensor, L: int, value: float = 0) -> Tensor:
    """Return `x [B, T, ...]` as chunks `[B, N, L, ...]`, the last one padded with `value`."""
    missing = -x.shape[1] % L
    if missing:
        x = pad(x, (0, 0) * (x.ndim - 2) + (0, missing), value=value)
    return x.unflatten(1, (-1, L))


def join(x: Tensor, T: int) -> Tensor:
    """Return chunks `[B, N, L, ...]` as `[B, T, ...]`, without the padding."""
    return x.flatten(1, 2)[:, :T]


def add_product(out: Tensor, x: Tensor, y: Tensor, alpha: float = 1) -> Tensor:
    """Add alpha X Y to `out [..., L, D]` in place, without a tensor in between, and return it."""
    out.flatten(0, -3).baddbmm_(x.flatten(0, -3), y.flatten(0, -3), alpha=alpha)
    return out


def decay(g: Tensor, reset: Tensor) -> Decay:
    """Return what is left of tokens and states in chunks.

    Args:
      g: log decay in chunks, `[B, N, L, H]`; not read at resets.
      reset: bool `[B, N, L]`.
    """
    L = g.shape[2]
    blocks = leaves(g, reset)
    D = torch.ones_like(blocks.before).unsqueeze(-1)  # (B, N, H, P, b, b)
    while blocks.before.shape[3] > 1:
        lower, upper, blocks = merge(blocks)
        D_0, D_1 = D.unflatten(3, (-1, 2)).unbind(4)
        between = upper.before.unsqueeze(-1) * lower.after.unsqueeze(-2)
        first = torch.cat([D_0, torch.zeros_like(D_0)], -1)
        D = torch.cat([first, torch.cat([between, D_1], -1)], -2)
    before, after = (x.squeeze(3) for x in blocks)
    return Decay(D.squeeze(3)[..., :L, :L], before[..., :L], after[..., :L], before[..., -1])


def leaves(g: Tensor, reset: Tensor) -> Blocks:
    """Return blocks of one token, as many as a power of two; those that are missing change nothing.

    Args:
      g: log decay in chunks, `[B, N, L, H]` or `[B, N, L, H, K]`; not read at resets.
      reset: bool `[B, N, L]`.
    """
    here = reset.unflatten(2, (-1, *(1,) * (g.ndim - 3)))
    a = g.exp().masked_fill(here, 0).transpose(2, 3)
    missing = (1 << (a.shape[3] - 1).bit_length()) - a.shape[3]
    a = pad(a, (0, 0) * (a.ndim - 4) + (0, missing), value=1).contiguous().unsqueeze(4)
    return Blocks(a, torch.ones_like(a))


def merge(blocks: Blocks) -> tuple[Blocks, Blocks, Blocks]:
    """Return the lower and the upper of each two neighbours, and blocks twice as long."""
    lower, upper = (
        Blocks(*(x.unflatten(3, (-1, 2)).select(4, half) for x in blocks)) for half in (0, 1)
    )
    return (
        lower,
        upper,
        Blocks(
            torch.cat([lower.before, lower.before[:, :, :, :, -1:] * upper.before], 4),
            torch.cat([lower.after * upper.before[:, :, :, :, -1:], upper.after], 4),
        ),
    )
