"""Laws of stacked layers of long short-term memory: torch.nn.LSTM and a step loop."""

import pytest
import torch
from torch import Tensor

from palaestra.policies.gru import GRU
from palaestra.policies.lstm import LSTM, LSTMState

B, T, C, H = 7, 13, 5, 6


def pair(layers: int) -> tuple[LSTM, torch.nn.LSTM, Tensor, LSTMState]:
    torch.manual_seed(0)
    ours = LSTM(C, H, layers).double()
    theirs = torch.nn.LSTM(C, H, layers, batch_first=True, dtype=torch.float64)
    for i, layer in enumerate(ours.layers):
        for name in ("w_ih", "w_hh", "b_ih", "b_hh"):
            weight = getattr(layer, name)
            torch.nn.init.normal_(weight, std=0.5)
            long = name.replace("w_", "weight_").replace("b_", "bias_")
            getattr(theirs, f"{long}_l{i}").data.copy_(weight.data)
    x = torch.randn(B, T, C, dtype=torch.float64, requires_grad=True)
    h, c = torch.randn(2, B, layers, H, dtype=torch.float64)
    return ours, theirs, x, LSTMState(h.requires_grad_(), c.requires_grad_())


def loop(net: LSTM, x: Tensor, state: LSTMState, reset: Tensor) -> tuple[Tensor, LSTMState]:
    rows = []
    for t in range(x.shape[1]):
        y, state = net.step(x[:, t], state, reset[:, t])
        rows.append(y)
    return torch.stack(rows, 1), state


def gradients(y: Tensor, state: LSTMState, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    total = sum(
        (x * torch.randn(x.shape, dtype=x.dtype, generator=generator)).sum()
        for x in (y, state.h, state.c)
    )
    assert isinstance(total, Tensor)
    return torch.autograd.grad(total, inputs)


@pytest.mark.parametrize("layers", [1, 2])
def test_without_resets_it_is_torch_lstm(layers: int) -> None:
    ours, theirs, x, state = pair(layers)
    y, end = ours(x, state, torch.zeros(B, T, dtype=torch.bool))
    expected, (h, c) = theirs(x, (state.h.transpose(0, 1), state.c.transpose(0, 1)))
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-14)
    their_end = LSTMState(h.transpose(0, 1), c.transpose(0, 1))
    torch.testing.assert_close(end.c, their_end.c, rtol=0, atol=1e-14)
    one = gradients(y, end, [x, state.h, state.c, *ours.parameters()])
    two = gradients(expected, their_end, [x, state.h, state.c, *theirs.parameters()])
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("p", [0.05, 0.5, 1.0])
def test_with_resets_it_is_the_step_loop(p: float) -> None:
    ours, _, x, state = pair(2)
    reset = torch.rand(B, T, generator=torch.Generator().manual_seed(1)) < p
    inputs = [x, state.h, state.c, *ours.parameters()]
    one, two = ours(x, state, reset), loop(ours, x, state, reset)
    torch.testing.assert_close(one[0], two[0], rtol=0, atol=1e-14)
    torch.testing.assert_close(one[1].c, two[1].c, rtol=0, atol=1e-14)
    for a, b in zip(gradients(*one, inputs), gradients(*two, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_a_new_network_remembers() -> None:
    layer = LSTM(C, H, 1).layers[0]
    assert (layer.b_ih[H : 2 * H] == 1).all()
    assert layer.b_ih.sum() == H
    assert not layer.b_hh.any()


@pytest.mark.parametrize("net", [LSTM(C, 500, 1, horizon=40), GRU(C, 500, 1, horizon=40)])
def test_a_new_network_with_a_horizon_remembers_two_steps_up_to_it(net: LSTM | GRU) -> None:
    state = net.initial_state(1).map(torch.ones_like)
    for layer in net.layers:
        for weight in (layer.w_ih, layer.w_hh):
            torch.nn.init.zeros_(weight)
    _, after = net.step(torch.zeros(1, C), state, torch.zeros(1, dtype=torch.bool))
    kept = after.tensors()["c" if isinstance(net, LSTM) else "h"]  # of a memory of 1, without input
    steps = 1 / (1 - kept)
    assert 2 <= steps.min() < 4
    assert 36 < steps.max() <= 40 + 1e-3
