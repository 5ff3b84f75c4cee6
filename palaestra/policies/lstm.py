"""Long short-term memory (doi 10.1162/neco.1997.9.8.1735), the classic of recurrent agents."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from palaestra.experience.state import State
from palaestra.kernels.lstm import LstmState, chunk_lstm, empty_state, step_lstm
from palaestra.options import Options
from palaestra.policies.base import Backbone
from palaestra.policies.layers import chrono_bias
from palaestra.policies.sequence import SequenceConfig, SequencePolicy


@dataclass
class LSTMState(State):
    """Output and cell of every layer, each `[B, num_layers, hidden_size]`."""

    h: Tensor
    c: Tensor


class LSTMLayer(nn.Module):
    """One layer, with the parameter layout of `torch.nn.LSTM`.

    Input weights start Glorot-uniform and recurrent weights orthogonal for each gate; biases at
    zero, but 1 for the forget gate, so that a new network remembers; with a horizon at chrono
    biases, which also close the input gate as far as the forget gate is open.
    """

    def __init__(self, in_features: int, hidden_size: int, horizon: int | None = None) -> None:
        super().__init__()
        self.w_ih = nn.Parameter(torch.empty(4 * hidden_size, in_features))
        self.w_hh = nn.Parameter(torch.empty(4 * hidden_size, hidden_size))
        self.b_ih = nn.Parameter(torch.zeros(4 * hidden_size))
        self.b_hh = nn.Parameter(torch.zeros(4 * hidden_size))
        with torch.no_grad():
            for w_ih, w_hh in zip(self.w_ih.chunk(4), self.w_hh.chunk(4), strict=True):
                nn.init.xavier_uniform_(w_ih)
                nn.init.orthogonal_(w_hh)
            in_gate, forget_gate, *_ = self.b_ih.chunk(4)
            if horizon is None:
                forget_gate.fill_(1)
            else:
                forget_gate.copy_(chrono_bias(hidden_size, horizon))
                in_gate.copy_(-forget_gate)

    def forward(self, x: Tensor, state: LstmState, reset: Tensor) -> tuple[Tensor, LstmState]:
        """`x [B, T, C]`, `reset [B, T]` -> `[B, T, H]` and the last state."""
        weights = self.w_ih, self.w_hh, self.b_ih, self.b_hh
        y, last = chunk_lstm(x, *weights, reset=reset, initial_state=state, output_final_state=True)
        assert last is not None
        return y, last

    def step(self, x: Tensor, state: LstmState, reset: Tensor) -> tuple[Tensor, LstmState]:
        """`x [B, C]`, `reset [B]` -> `[B, H]` and the next state."""
        weights = self.w_ih, self.w_hh, self.b_ih, self.b_hh
        return step_lstm(x, *weights, state, reset=reset)


class LSTM(Backbone):
    """Layers on top of each other; each layer's output is the next one's input.

    Args:
      in_features: width of the input.
      hidden_size: width of each layer.
      num_layers: number of layers.
      horizon: steps that a new network remembers at most; None starts with forget biases of 1.
    """

    def __init__(
        self, in_features: int, hidden_size: int, num_layers: int, horizon: int | None = None
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, hidden_size
        widths = [in_features] + [hidden_size] * (num_layers - 1)
        self.layers = nn.ModuleList(LSTMLayer(width, hidden_size, horizon) for width in widths)

    def initial_state(self, batch: int) -> LSTMState:
        """Return zeros."""
        h = empty_state(batch, self.out_features, like=next(self.parameters())).h
        h = h.unsqueeze(1).repeat(1, len(self.layers), 1)
        return LSTMState(h, h.clone())

    def forward(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, LSTMState]:
        """Read a window; see `Backbone.forward`."""
        assert isinstance(state, LSTMState)
        last = []
        for layer, h, c in zip(self.layers, state.h.unbind(1), state.c.unbind(1), strict=True):
            x, after = layer(x, LstmState(h, c), reset)
            last.append(after)
        return x, _stacked(last)

    def step(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, LSTMState]:
        """Read one step; see `Backbone.step`."""
        assert isinstance(state, LSTMState)
        last = []
        for layer, h, c in zip(self.layers, state.h.unbind(1), state.c.unbind(1), strict=True):
            assert isinstance(layer, LSTMLayer)
            x, after = layer.step(x, LstmState(h, c), reset)
            last.append(after)
        return x, _stacked(last)


def _stacked(layers: list[LstmState]) -> LSTMState:
    """Return the states of all layers as one."""
    return LSTMState(
        torch.stack([state.h for state in layers], 1), torch.stack([state.c for state in layers], 1)
    )


class LSTMConfig(SequenceConfig):
    """Options of the long short-term memory."""

    hidden_size: int = Field(64, ge=1, description="width of each layer")
    num_layers: int = Field(1, ge=1, description="number of layers")
    horizon: int | None = Field(
        None, ge=3, description="steps that a new network remembers at most: chrono biases"
    )


class LSTMPolicy(SequencePolicy):
    """Long short-term memory."""

    Config: ClassVar[type[Options]] = LSTMConfig

    def make_backbone(self, in_features: int) -> LSTM:
        """Return the layers."""
        config = self.config
        return LSTM(in_features, config.hidden_size, config.num_layers, config.horizon)
