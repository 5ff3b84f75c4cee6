"""Laws of the gated recurrent unit: against torch.nn.GRU, a step loop and finite differences."""

import pytest
import torch
from torch import Tensor

from palaestra.kernels.gru import chunk_gru, recurrent_gru, scan

Arguments = list[Tensor]


def make(
    B: int, T: int, C: int, H: int, dtype: torch.dtype = torch.float64
) -> tuple[torch.nn.GRU, Tensor, Tensor, Arguments]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        gru = torch.nn.GRU(C, H, dtype=dtype, batch_first=True)
        x, h_0 = torch.randn(B, T, C, dtype=dtype), torch.randn(B, H, dtype=dtype)
    weights = [gru.weight_ih_l0, gru.weight_hh_l0, gru.bias_ih_l0, gru.bias_hh_l0]
    return gru, x.requires_grad_(), h_0.requires_grad_(), weights


def some_resets(B: int, T: int, p: float = 0.25) -> Tensor:
    return torch.rand(B, T, generator=torch.Generator().manual_seed(1)) < p


def read(x: Tensor, h_0: Tensor, reset: Tensor | None, weights: Arguments) -> Tensor:
    return chunk_gru(x, *weights, reset=reset, initial_state=h_0)[0]


def gradients(y: Tensor, inputs: Arguments) -> tuple[Tensor, ...]:
    weight = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(2))
    return torch.autograd.grad((y * weight).sum(), inputs)


@pytest.mark.parametrize("block", [1, 100, 65536])
def test_without_resets_it_is_torch_gru(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(scan, "_BLOCK", block)
    gru, x, h_0, weights = make(B=7, T=11, C=5, H=6)
    y, h = chunk_gru(x, *weights, initial_state=h_0, output_final_state=True)
    expected, h_T = gru(x, h_0[None])
    torch.testing.assert_close((y, h), (expected, h_T[0]), rtol=0, atol=1e-14)
    inputs = [x, h_0, *weights]
    for ours, torchs in zip(gradients(y, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-12, atol=1e-13)


def test_in_single_precision_it_is_torch_gru_to_a_millionth() -> None:
    gru, x, h_0, weights = make(B=16, T=50, C=14, H=64, dtype=torch.float32)
    torch.testing.assert_close(read(x, h_0, None, weights), gru(x, h_0[None])[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("block", [1, 100, 65536])
@pytest.mark.parametrize("p", [0.05, 0.5, 1.0])
def test_with_resets_it_is_the_step_loop(
    monkeypatch: pytest.MonkeyPatch, block: int, p: float
) -> None:
    monkeypatch.setattr(scan, "_BLOCK", block)
    _, x, h_0, weights = make(B=7, T=13, C=5, H=6)
    options = {"reset": some_resets(7, 13, p), "initial_state": h_0, "output_final_state": True}
    one, two = chunk_gru(x, *weights, **options), recurrent_gru(x, *weights, **options)
    torch.testing.assert_close(one, two, rtol=0, atol=1e-14)
    inputs = [x, h_0, *weights]
    for ours, loops in zip(gradients(one[0], inputs), gradients(two[0], inputs), strict=True):
        torch.testing.assert_close(ours, loops, rtol=1e-12, atol=1e-13)


def test_gradients_are_finite_differences() -> None:
    _, x, h_0, weights = make(B=3, T=5, C=2, H=3)
    reset = some_resets(3, 5)
    assert reset.any()
    assert torch.autograd.gradcheck(
        lambda x, h_0, *w: read(x, h_0, reset, list(w)), (x, h_0, *weights)
    )


def test_inputs_that_are_views_of_other_layouts_give_the_same() -> None:
    _, x, h_0, weights = make(B=4, T=6, C=3, H=5)
    time_first = x.detach().transpose(0, 1).contiguous().transpose(0, 1)
    assert not time_first.is_contiguous()
    reset = some_resets(4, 6)
    assert torch.equal(read(time_first, h_0, reset, weights), read(x, h_0, reset, weights))


def test_an_expanded_output_gradient_is_read_right() -> None:
    _, x, h_0, weights = make(B=4, T=6, C=3, H=5)
    y = read(x, h_0, some_resets(4, 6), weights)
    ours = torch.autograd.grad(y.sum(), [x, h_0], retain_graph=True)
    plain = torch.autograd.grad(y, [x, h_0], torch.ones_like(y).contiguous())
    assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))


def test_no_gradient_crosses_a_reset() -> None:
    _, x, h_0, weights = make(B=3, T=8, C=4, H=5)
    reset = torch.zeros(3, 8, dtype=torch.bool)
    reset[:, 4] = True
    y = read(x, h_0, reset, weights)
    dx, dh_0 = torch.autograd.grad(y[:, 4:].sum(), [x, h_0])
    assert not dx[:, :4].any()
    assert not dh_0.any()
    assert dx[:, 4:].all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_broken_episode_reaches_neither_the_next_one_nor_the_weights(value: float) -> None:
    _, x, h_0, weights = make(B=3, T=8, C=4, H=5)
    reset = torch.zeros(3, 8, dtype=torch.bool)
    reset[:, 4] = True
    broken_x, broken_h = x.detach().clone(), h_0.detach().clone()
    broken_x[0, 1:4] = value
    broken_h[1, 2] = value
    broken_x.requires_grad_()
    y, clean = read(broken_x, broken_h, reset, weights), read(x, h_0, reset, weights)
    assert torch.equal(y[:, 4:], clean[:, 4:])
    ours = torch.autograd.grad(y[:, 4:].sum(), [broken_x, *weights], retain_graph=True)
    expected = torch.autograd.grad(clean[:, 4:].sum(), [x, *weights], retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))
    # Whatever the loss reads, only what it reads of whole steps is learnt from.
    ours = torch.autograd.grad(y.nansum(), weights)
    whole = clean[:, 4:].sum() + clean[2, :4].sum() + clean[0, 0].sum()
    for one, two in zip(ours, torch.autograd.grad(whole, weights), strict=True):
        torch.testing.assert_close(one, two)


def test_a_reset_changes_no_other_row_by_one_bit() -> None:
    _, x, h_0, weights = make(B=5, T=9, C=4, H=8, dtype=torch.float32)
    reset = some_resets(5, 9)
    other = reset.clone()
    other[2] = ~other[2]
    rows = [0, 1, 3, 4]
    one, two = read(x, h_0, reset, weights), read(x, h_0, other, weights)
    assert torch.equal(one[rows], two[rows])
    assert not torch.equal(one[2], two[2])
    (dx_one,), (dx_two,) = gradients(one, [x]), gradients(two, [x])
    assert torch.equal(dx_one[rows], dx_two[rows])
