"""Laws of chunks: what is left of a token at another equals the step recurrence."""

import pytest
import torch
from torch import Tensor

from palaestra.kernels._common.chunk import Decay, decay, join, leaves, merge, split

RESETS = {
    "none": [],
    "first": [0],
    "last": [15],
    "adjacent": [5, 6, 7],
    "every step": list(range(16)),
    "chunk edges": [4, 8],
    "inside": [2, 9],
}


def by_steps(g: Tensor, reset: Tensor) -> Decay:
    """The same quantities of one chunk `[1, 1, L, H]`, token by token."""
    a = g[0, 0].exp().masked_fill(reset[0, 0].unsqueeze(-1), 0)  # (L, H)
    L, H = a.shape
    D = a.new_zeros(H, L, L)
    for j in range(L):
        left = torch.ones_like(a[0])
        for i in range(j, L):
            left = left if i == j else left * a[i]
            D[:, i, j] = left
    cin = torch.cumprod(a, 0)
    return Decay(D, cin.mT, D[:, -1], cin[-1])


def window(positions: list[int], *shape: int) -> tuple[Tensor, Tensor]:
    g = -torch.rand(1, 16, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    reset = torch.zeros(1, 16, dtype=torch.bool)
    reset[0, positions] = True
    return g, reset


@pytest.mark.parametrize("positions", RESETS.values(), ids=RESETS.keys())
def test_decay_equals_the_product_of_the_steps_factors(positions: list[int]) -> None:
    g, reset = window(positions, 3)
    found = decay(split(g, 8), split(reset, 8))
    for n in range(2):
        wanted = by_steps(split(g, 8)[:, n : n + 1], split(reset, 8)[:, n : n + 1])
        for x, y in zip(found, wanted, strict=True):
            torch.testing.assert_close(x[0, n], y, rtol=0, atol=1e-14)


def test_blocks_per_channel_hold_the_decay_of_each_channel() -> None:
    g, reset = window([3, 11], 2, 5)
    blocks = leaves(split(g, 8), split(reset, 8))
    while blocks.before.shape[3] > 1:
        *_, blocks = merge(blocks)
    for k in range(5):
        alone = decay(split(g[..., k], 8), split(reset, 8))
        assert torch.equal(blocks.before[:, :, :, 0, :, k], alone.cin)
        assert torch.equal(blocks.after[:, :, :, 0, :, k], alone.cout)


@pytest.mark.parametrize("L", [1, 3, 7, 12])
def test_a_chunk_may_have_any_length(L: int) -> None:
    g, reset = window([3, 11], 2)
    whole = decay(split(g, 16), split(reset, 16)).D
    found = decay(split(g, L), split(reset, L))
    torch.testing.assert_close(found.D[:, 0], whole[:, 0, :, :L, :L], rtol=1e-14, atol=0)
    assert torch.equal(found.dec[:, 0], found.cin[:, 0, :, -1])


def test_minus_infinity_is_a_reset() -> None:
    g, reset = window([3, 11], 2)
    other = g.masked_fill(reset.unsqueeze(-1), -torch.inf)
    found, wanted = (
        decay(split(other, 8), split(~reset & reset, 8)),
        decay(split(g, 8), split(reset, 8)),
    )
    assert all(torch.equal(x, y) for x, y in zip(found, wanted, strict=True))


def test_the_decay_at_a_reset_is_not_read() -> None:
    g, reset = window([3, 11], 2)
    other = g.masked_fill(reset.unsqueeze(-1), torch.nan)
    found, wanted = (decay(split(x, 8), split(reset, 8)) for x in (other, g))
    assert all(torch.equal(x, y) for x, y in zip(found, wanted, strict=True))


def test_strong_decay_before_a_reset_costs_no_digits_after_it() -> None:
    g, reset = window([8], 1)
    g[:, :8] = -1e4
    exact = decay(split(g, 16), split(reset, 16)).D
    found = decay(split(g.float(), 16), split(reset, 16)).D
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=1e-37)


def test_gradients_at_resets_and_across_them_are_zero() -> None:
    g, reset = window([5], 1)
    g.requires_grad_()
    D = decay(split(g, 16), split(reset, 16)).D
    (dg,) = torch.autograd.grad(D[..., 5:, :].sum(), g)
    assert dg[0, :6].count_nonzero() == 0
    assert dg[0, 6:].count_nonzero() == 10


@pytest.mark.parametrize("T", [1, 7, 8, 9, 16])
def test_join_undoes_split(T: int) -> None:
    x = torch.randn(2, T, 3, 4)
    chunks = split(x, 8, value=7)
    assert torch.equal(join(chunks, T), x)
    assert (chunks.flatten(1, 2)[:, T:] == 7).all()
