"""Laws of the long short-term memory: torch.nn.LSTM, a step loop and finite differences."""

import pytest
import torch
from torch import Tensor

from palaestra.kernels.lstm import LstmState, chunk_lstm, recurrent_lstm

B, T, C, H = 7, 13, 5, 6


def make(dtype: torch.dtype = torch.float64) -> tuple[torch.nn.LSTM, list[Tensor], list[Tensor]]:
    """Return torch's layer, (x, h_0, c_0) and the weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        lstm = torch.nn.LSTM(C, H, dtype=dtype, batch_first=True)
        for weight in lstm.parameters():
            torch.nn.init.normal_(weight, std=0.5)
        inputs = [torch.randn(shape, dtype=dtype) for shape in ((B, T, C), (B, H), (B, H))]
    weights = [lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0, lstm.bias_hh_l0]
    return lstm, [x.requires_grad_() for x in inputs], list(weights)


def some_resets(p: float) -> Tensor:
    return torch.rand(B, T, generator=torch.Generator().manual_seed(1)) < p


def read(
    x: Tensor, h: Tensor, c: Tensor, reset: Tensor | None, weights: list[Tensor], loop: bool = False
) -> tuple[Tensor, Tensor]:
    """Return outputs and the last cell."""
    run = recurrent_lstm if loop else chunk_lstm
    state = LstmState(h, c)
    y, last = run(x, *weights, reset=reset, initial_state=state, output_final_state=True)
    assert last is not None
    assert torch.equal(last.h, y[:, -1])
    return y, last.c


def gradients(y: Tensor, c: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    given = [torch.randn(x.shape, dtype=x.dtype, generator=generator) for x in (y, c)]
    return torch.autograd.grad((y, c), inputs, given)


def test_without_resets_it_is_torch_lstm() -> None:
    lstm, (x, h_0, c_0), weights = make()
    y, c = read(x, h_0, c_0, None, weights)
    expected, (_, c_T) = lstm(x, (h_0[None], c_0[None]))
    torch.testing.assert_close((y, c), (expected, c_T[0]), rtol=0, atol=1e-14)
    inputs = [x, h_0, c_0, *weights]
    one, two = gradients(y, c, inputs), gradients(expected, c_T[0], inputs)
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("p", [0.05, 0.5, 1.0])
def test_with_resets_it_is_the_step_loop(p: float) -> None:
    _, (x, h_0, c_0), weights = make()
    one, two = (read(x, h_0, c_0, some_resets(p), weights, loop) for loop in (False, True))
    torch.testing.assert_close(one, two, rtol=0, atol=1e-14)
    inputs = [x, h_0, c_0, *weights]
    torch.testing.assert_close(
        gradients(*one, inputs), gradients(*two, inputs), rtol=1e-12, atol=1e-12
    )


def test_in_single_precision_it_is_torch_lstm_to_a_millionth() -> None:
    lstm, (x, h_0, c_0), weights = make(torch.float32)
    y, _ = read(x, h_0, c_0, None, weights)
    torch.testing.assert_close(y, lstm(x, (h_0[None], c_0[None]))[0], rtol=0, atol=1e-6)


def test_gradients_are_finite_differences() -> None:
    torch.manual_seed(0)
    shapes = (3, 4, 2), (3, 2), (3, 2), (8, 2), (8, 2), (8,), (8,)
    x, h, c, *weights = (
        torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes
    )
    reset = torch.tensor([[0, 0, 1, 0], [0, 1, 1, 0], [1, 0, 0, 0]]).bool()
    assert torch.autograd.gradcheck(
        lambda x, h, c, *w: read(x, h, c, reset, list(w)), (x, h, c, *weights)
    )


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nothing_crosses_a_reset_and_a_broken_state_reaches_no_weight(value: float) -> None:
    _, (x, h_0, c_0), weights = make()
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[:, 5] = True
    y, c = read(x, h_0, c_0, reset, weights)
    loss = y[:, 5:].sum() + c.sum()
    dx, dh, dc = torch.autograd.grad(loss, (x, h_0, c_0), retain_graph=True)
    assert not dx[:, :5].any()
    assert not dh.any()
    assert not dc.any()
    broken = torch.full_like(h_0, value)
    after, c = read(x, broken, broken, reset, weights)
    assert torch.equal(after[:, 5:], y[:, 5:])
    expected = torch.autograd.grad(loss, weights)
    later = after[:, 5:].sum() + c.sum()
    for loss in (later, after[:, :5].nansum() + later):
        ours = torch.autograd.grad(loss, weights, retain_graph=True)
        assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


def test_a_reset_changes_no_other_row_by_one_bit() -> None:
    _, (x, h_0, c_0), weights = make(torch.float32)
    reset = some_resets(0.25)
    other = reset.clone()
    other[2] = ~other[2]
    rows = [0, 1, 3, 4, 5, 6]
    one, two = (read(x, h_0, c_0, r, weights)[0] for r in (reset, other))
    assert torch.equal(one[rows], two[rows])
    assert not torch.equal(one[2], two[2])
