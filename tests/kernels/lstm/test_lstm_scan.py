"""Laws of the long short-term memory: torch.nn.LSTM, a step loop and finite differences."""

import pytest
import torch
from torch import Tensor

from palaestra.kernels.lstm import lstm_scan, lstm_step

T, B, C, H = 13, 7, 5, 6


def make(dtype: torch.dtype = torch.float64) -> tuple[torch.nn.LSTM, list[Tensor], list[Tensor]]:
    """Return torch's layer, (x, h_0, c_0) and the weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        lstm = torch.nn.LSTM(C, H, dtype=dtype)
        for weight in lstm.parameters():
            torch.nn.init.normal_(weight, std=0.5)
        inputs = [torch.randn(shape, dtype=dtype) for shape in ((T, B, C), (B, H), (B, H))]
    weights = [lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0, lstm.bias_hh_l0]
    return lstm, [x.requires_grad_() for x in inputs], list(weights)


def some_resets(p: float) -> Tensor:
    return torch.rand(T, B, generator=torch.Generator().manual_seed(1)) < p


def step_loop(
    x: Tensor, h: Tensor, c: Tensor, reset: Tensor, weights: list[Tensor]
) -> tuple[Tensor, Tensor]:
    rows = []
    for x_t, reset_t in zip(x, reset, strict=True):
        h, c = lstm_step(x_t, h, c, reset_t, *weights)
        rows.append(h)
    return torch.stack(rows), c


def gradients(y: Tensor, c: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    given = [torch.randn(x.shape, dtype=x.dtype, generator=generator) for x in (y, c)]
    return torch.autograd.grad((y, c), inputs, given)


def test_without_resets_it_is_torch_lstm() -> None:
    lstm, (x, h_0, c_0), weights = make()
    y, c = lstm_scan(x, h_0, c_0, torch.zeros(T, B, dtype=torch.bool), *weights)
    expected, (_, c_T) = lstm(x, (h_0[None], c_0[None]))
    torch.testing.assert_close((y, c), (expected, c_T[0]), rtol=0, atol=1e-14)
    inputs = [x, h_0, c_0, *weights]
    one, two = gradients(y, c, inputs), gradients(expected, c_T[0], inputs)
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("p", [0.05, 0.5, 1.0])
def test_with_resets_it_is_the_step_loop(p: float) -> None:
    _, (x, h_0, c_0), weights = make()
    one = lstm_scan(x, h_0, c_0, some_resets(p), *weights)
    two = step_loop(x, h_0, c_0, some_resets(p), weights)
    torch.testing.assert_close(one, two, rtol=0, atol=1e-14)
    inputs = [x, h_0, c_0, *weights]
    torch.testing.assert_close(
        gradients(*one, inputs), gradients(*two, inputs), rtol=1e-12, atol=1e-12
    )


def test_in_single_precision_it_is_torch_lstm_to_a_millionth() -> None:
    lstm, (x, h_0, c_0), weights = make(torch.float32)
    y, _ = lstm_scan(x, h_0, c_0, torch.zeros(T, B, dtype=torch.bool), *weights)
    torch.testing.assert_close(y, lstm(x, (h_0[None], c_0[None]))[0], rtol=0, atol=1e-6)


def test_gradients_are_finite_differences() -> None:
    torch.manual_seed(0)
    shapes = (4, 3, 2), (3, 2), (3, 2), (8, 2), (8, 2), (8,), (8,)
    x, h, c, *weights = (
        torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes
    )
    reset = torch.tensor([[0, 0, 1, 0], [0, 1, 1, 0], [1, 0, 0, 0]]).bool().t()
    assert torch.autograd.gradcheck(
        lambda x, h, c, *w: lstm_scan(x, h, c, reset, *w), (x, h, c, *weights)
    )


def test_nothing_crosses_a_reset_and_a_broken_state_is_forgotten() -> None:
    _, (x, h_0, c_0), weights = make()
    reset = torch.zeros(T, B, dtype=torch.bool)
    reset[5] = True
    y, c = lstm_scan(x, h_0, c_0, reset, *weights)
    dx, dh, dc = torch.autograd.grad(y[5:].sum() + c.sum(), (x, h_0, c_0))
    assert not dx[:5].any()
    assert not dh.any()
    assert not dc.any()
    broken = torch.full_like(h_0, torch.nan)
    after, _ = lstm_scan(x, broken, broken, reset, *weights)
    assert torch.equal(after[5:], y[5:])


def test_a_reset_changes_no_other_row_by_one_bit() -> None:
    _, (x, h_0, c_0), weights = make(torch.float32)
    reset = some_resets(0.25)
    other = reset.clone()
    other[:, 2] = ~other[:, 2]
    rows = [0, 1, 3, 4, 5, 6]
    one, two = (lstm_scan(x, h_0, c_0, r, *weights)[0] for r in (reset, other))
    assert torch.equal(one[:, rows], two[:, rows])
    assert not torch.equal(one[:, 2], two[:, 2])
