"""Laws of what the memory layers are made of."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from palaestra.policies.convolution import ShortConvolution
from palaestra.policies.layers import SwiGLU, chrono_bias, fan_in_linear, l2norm

B, T, C = 5, 23, 6


def make(size: int = 4, p: float = 0.2, seed: int = 0) -> tuple[ShortConvolution, Tensor, Tensor]:
    torch.manual_seed(seed)
    conv = ShortConvolution(C, size).double()
    x = torch.randn(B, T, C, dtype=torch.float64, requires_grad=True)
    return conv, x, torch.rand(B, T) < p


def by_episode(conv: ShortConvolution, x: Tensor, reset: Tensor) -> Tensor:
    """Every episode of every row on its own, by torch's convolution."""
    rows = []
    for b in range(B):
        bounds = sorted({0, *reset[b].nonzero()[:, 0].tolist(), T})
        parts = [
            torch.nn.functional.conv1d(
                torch.nn.functional.pad(x[b, start:stop].t(), (conv.size - 1, 0)),
                conv.weight.flip(0).t().unsqueeze(1),
                groups=C,
            ).t()
            for start, stop in pairwise(bounds)
        ]
        rows.append(torch.cat(parts))
    return torch.stack(rows)


@pytest.mark.parametrize("size", [1, 2, 4, 30])
@pytest.mark.parametrize("p", [0.0, 0.2, 1.0])
def test_convolution_is_that_of_each_episode_alone(size: int, p: float) -> None:
    conv, x, reset = make(size, p)
    y, _ = conv(x, conv.initial_cache(B), reset)
    expected = by_episode(conv, x, reset)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-14)
    w = torch.randn_like(y)
    inputs = (x, conv.weight)
    ours = torch.autograd.grad((y * w).sum(), inputs)
    theirs = torch.autograd.grad((expected * w).sum(), inputs)
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", [1, 2, 4, 30])
def test_convolution_steps_and_cut_windows_equal_the_whole(size: int) -> None:
    conv, x, reset = make(size)
    torch.manual_seed(1)
    cache = torch.randn_like(conv.initial_cache(B))
    whole, end = conv(x, cache, reset)
    carried, parts = cache, []
    for start, stop in ((0, 1), (1, 3), (3, 14), (14, T)):
        part, carried = conv(x[:, start:stop], carried, reset[:, start:stop])
        parts.append(part)
    assert torch.equal(torch.cat(parts, 1), whole)
    assert torch.equal(carried, end)
    carried, steps = cache, []
    for t in range(T):
        y, carried = conv.step(x[:, t], carried, reset[:, t])
        steps.append(y)
    torch.testing.assert_close(torch.stack(steps, 1), whole, rtol=0, atol=1e-14)
    assert torch.equal(carried, end)


def test_convolution_gradients_are_finite_differences_to_the_cache_too() -> None:
    torch.manual_seed(0)
    conv = ShortConvolution(2, 3).double()
    x = torch.randn(2, 5, 2, dtype=torch.float64, requires_grad=True)
    cache = torch.randn(2, 2, 2, dtype=torch.float64, requires_grad=True)
    reset = torch.tensor([[0, 1, 0, 0, 0], [0, 0, 0, 1, 1]]).bool()
    assert torch.autograd.gradcheck(lambda x, c: conv(x, c, reset), (x, cache))
    assert torch.autograd.gradcheck(lambda x, c: conv.step(x[:, 0], c, reset[:, 1]), (x, cache))


def test_convolution_lets_nothing_across_a_reset() -> None:
    conv, x, reset = make()
    reset[:] = False
    reset[:, 9] = True
    cache = conv.initial_cache(B).requires_grad_()
    y, end = conv(x, cache, reset)
    for of in (y[:, 9:], end):
        dx, dcache = torch.autograd.grad(of.sum(), (x, cache), retain_graph=True)
        assert not dx[:, :9].any()
        assert not dcache.any()
        assert dx[:, 9:].any()
    broken = x.detach().clone()
    broken[:, :9] = torch.nan
    after, _ = conv(broken, torch.full_like(cache, torch.inf), reset)
    assert torch.equal(after[:, 9:], y[:, 9:])
    one, _ = conv.step(x[:, 0], torch.full_like(cache, torch.nan), torch.ones(B).bool())
    assert torch.equal(one, x[:, 0] * conv.weight[0])


def test_a_late_reset_is_noticed() -> None:
    conv, x, reset = make()
    y, _ = conv(x, conv.initial_cache(B), reset.roll(1, 1))
    assert (y - by_episode(conv, x, reset)).abs().max() > 0.1


def test_swiglu_is_its_formula() -> None:
    torch.manual_seed(0)
    mlp, x = SwiGLU(4, 6).double(), torch.randn(7, 4, dtype=torch.float64)
    gate, up = (x @ mlp.gate_up.weight.t()).split(6, 1)
    expected = (gate * gate.sigmoid() * up) @ mlp.down.weight.t()
    torch.testing.assert_close(mlp(x), expected, rtol=0, atol=1e-14)


def test_weights_start_so_that_variance_is_kept() -> None:
    torch.manual_seed(0)
    x = torch.randn(256, 400)
    assert fan_in_linear(400, 300)(x).var().item() == pytest.approx(1, abs=0.05)
    assert fan_in_linear(400, 300, 0.5)(x).var().item() == pytest.approx(0.25, abs=0.02)


def test_unit_length_has_no_pole_at_zero() -> None:
    x = torch.zeros(3, 4, requires_grad=True)
    l2norm(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert l2norm(torch.ones(3, 4)).norm(dim=-1) == pytest.approx(1, abs=1e-6)


def test_chrono_biases_spread_over_the_horizon() -> None:
    torch.manual_seed(0)
    remembers = chrono_bias(1000, 16).exp()
    assert remembers.min() >= 1
    assert remembers.max() <= 15
    assert remembers.mean().item() == pytest.approx(8, abs=0.5)
    for short in (1, 2):
        assert not chrono_bias(4, short).any()
