"""Laws of the gated recurrent unit: against torch.nn.GRU, a step loop and finite differences."""

import pytest
import torch
from torch import Tensor

from palaestra.kernels.gru import gru_scan, gru_step, scan

Arguments = list[Tensor]


def make(
    T: int, B: int, C: int, H: int, dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[torch.nn.GRU, Tensor, Tensor, Arguments]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        gru = torch.nn.GRU(C, H, dtype=dtype)
        x, h_0 = torch.randn(T, B, C, dtype=dtype), torch.randn(B, H, dtype=dtype)
    weights = [gru.weight_ih_l0, gru.weight_hh_l0, gru.bias_ih_l0, gru.bias_hh_l0]
    return gru, x.requires_grad_(), h_0.requires_grad_(), weights


def some_resets(T: int, B: int, p: float = 0.25, seed: int = 1) -> Tensor:
    return torch.rand(T, B, generator=torch.Generator().manual_seed(seed)) < p


def step_loop(x: Tensor, h_t: Tensor, reset: Tensor, weights: Arguments) -> Tensor:
    states = []
    for x_t, reset_t in zip(x, reset, strict=True):
        h_t = gru_step(x_t, h_t, reset_t, *weights)
        states.append(h_t)
    return torch.stack(states)


def gradients(y: Tensor, inputs: Arguments) -> tuple[Tensor, ...]:
    weight = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(2))
    return torch.autograd.grad((y * weight).sum(), inputs)


@pytest.mark.parametrize("block", [1, 100, 65536])
def test_without_resets_it_is_torch_gru(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(scan, "_BLOCK", block)
    gru, x, h_0, weights = make(T=11, B=7, C=5, H=6)
    y = gru_scan(x, h_0, torch.zeros(11, 7, dtype=torch.bool), *weights)
    expected = gru(x, h_0[None])[0]
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-14)
    inputs = [x, h_0, *weights]
    for ours, torchs in zip(gradients(y, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-12, atol=1e-13)


def test_in_single_precision_it_is_torch_gru_to_a_millionth() -> None:
    gru, x, h_0, weights = make(T=50, B=16, C=14, H=64, dtype=torch.float32)
    y = gru_scan(x, h_0, torch.zeros(50, 16, dtype=torch.bool), *weights)
    torch.testing.assert_close(y, gru(x, h_0[None])[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("block", [1, 100, 65536])
@pytest.mark.parametrize("p", [0.05, 0.5, 1.0])
def test_with_resets_it_is_the_step_loop(
    monkeypatch: pytest.MonkeyPatch, block: int, p: float
) -> None:
    monkeypatch.setattr(scan, "_BLOCK", block)
    _, x, h_0, weights = make(T=13, B=7, C=5, H=6)
    reset = some_resets(13, 7, p)
    y, expected = gru_scan(x, h_0, reset, *weights), step_loop(x, h_0, reset, weights)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-14)
    inputs = [x, h_0, *weights]
    for ours, loops in zip(gradients(y, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(ours, loops, rtol=1e-12, atol=1e-13)


def test_gradients_are_finite_differences() -> None:
    _, x, h_0, weights = make(T=5, B=3, C=2, H=3)
    reset = some_resets(5, 3)
    assert reset.any()
    assert torch.autograd.gradcheck(
        lambda x, h_0, *w: gru_scan(x, h_0, reset, *w), (x, h_0, *weights)
    )


def test_inputs_that_are_views_of_other_layouts_give_the_same() -> None:
    _, x, h_0, weights = make(T=6, B=4, C=3, H=5)
    batch_first = x.detach().transpose(0, 1).contiguous().transpose(0, 1)
    assert not batch_first.is_contiguous()
    reset = some_resets(6, 4)
    assert torch.equal(
        gru_scan(batch_first, h_0, reset, *weights), gru_scan(x, h_0, reset, *weights)
    )


def test_an_expanded_output_gradient_is_read_right() -> None:
    _, x, h_0, weights = make(T=6, B=4, C=3, H=5)
    reset = some_resets(6, 4)
    y = gru_scan(x, h_0, reset, *weights)
    ours = torch.autograd.grad(y.sum(), [x, h_0], retain_graph=True)
    plain = torch.autograd.grad(y, [x, h_0], torch.ones_like(y).contiguous())
    assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))


def test_no_gradient_crosses_a_reset() -> None:
    _, x, h_0, weights = make(T=8, B=3, C=4, H=5)
    reset = torch.zeros(8, 3, dtype=torch.bool)
    reset[4] = True
    y = gru_scan(x, h_0, reset, *weights)
    dx, dh_0 = torch.autograd.grad(y[4:].sum(), [x, h_0])
    assert not dx[:4].any()
    assert not dh_0.any()
    assert dx[4:].all()


def test_a_broken_episode_does_not_reach_the_next_one() -> None:
    _, x, h_0, weights = make(T=8, B=3, C=4, H=5)
    reset = torch.zeros(8, 3, dtype=torch.bool)
    reset[4] = True
    clean = gru_scan(x, h_0, reset, *weights)
    broken_x = x.detach().clone()
    broken_x[1:4] = torch.nan
    broken_x.requires_grad_()
    y = gru_scan(broken_x, h_0, reset, *weights)
    assert torch.equal(y[4:], clean[4:])
    (dx,) = torch.autograd.grad(y[4:].sum(), broken_x)
    assert torch.equal(dx[4:], torch.autograd.grad(clean[4:].sum(), x)[0][4:])


def test_a_reset_changes_no_other_row_by_one_bit() -> None:
    _, x, h_0, weights = make(T=9, B=5, C=4, H=8, dtype=torch.float32)
    reset = some_resets(9, 5)
    other = reset.clone()
    other[:, 2] = ~other[:, 2]
    rows = [0, 1, 3, 4]
    one, two = gru_scan(x, h_0, reset, *weights), gru_scan(x, h_0, other, *weights)
    assert torch.equal(one[:, rows], two[:, rows])
    assert not torch.equal(one[:, 2], two[:, 2])
    (dx_one,), (dx_two,) = gradients(one, [x]), gradients(two, [x])
    assert torch.equal(dx_one[:, rows], dx_two[:, rows])
