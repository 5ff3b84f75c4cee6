"""Gated recurrent unit: the smallest memory."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from palaestra.experience.state import State
from palaestra.kernels.gru import chunk_gru, empty_state, step_gru
from palaestra.options import Options
from palaestra.policies.base import Backbone
from palaestra.policies.layers import chrono_bias
from palaestra.policies.sequence import SequenceConfig, SequencePolicy


@dataclass
class GRUState(State):
    """The hidden state of every layer."""

    h: Tensor
    """`[B, num_layers, hidden_size]`."""


class GRULayer(nn.Module):
    """One layer, with the parameter layout of `torch.nn.GRU`.

    Input weights start Glorot-uniform, recurrent weights orthogonal for each gate, biases at zero;
    with a horizon those of the update gate, which keeps the state, at chrono biases.
    """

    def __init__(self, in_features: int, hidden_size: int, horizon: int | None = None) -> None:
        super().__init__()
        self.w_ih = nn.Parameter(torch.empty(3 * hidden_size, in_features))
        self.w_hh = nn.Parameter(torch.empty(3 * hidden_size, hidden_size))
        self.b_ih = nn.Parameter(torch.zeros(3 * hidden_size))
        self.b_hh = nn.Parameter(torch.zeros(3 * hidden_size))
        with torch.no_grad():
            for w_ih, w_hh in zip(self.w_ih.chunk(3), self.w_hh.chunk(3), strict=True):
                nn.init.xavier_uniform_(w_ih)
                nn.init.orthogonal_(w_hh)
            if horizon is not None:
                self.b_ih[hidden_size : 2 * hidden_size] = chrono_bias(hidden_size, horizon)

    def forward(self, x: Tensor, h_0: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
        """`x [B, T, C]`, `h_0 [B, H]`, `reset [B, T]` -> `[B, T, H]` and the last state."""
        weights = self.w_ih, self.w_hh, self.b_ih, self.b_hh
        y, h = chunk_gru(x, *weights, reset=reset, initial_state=h_0, output_final_state=True)
        assert h is not None
        return y, h

    def step(self, x: Tensor, h_tm1: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
        """`x [B, C]`, `h_tm1 [B, H]`, `reset [B]` -> `[B, H]` and the next state."""
        weights = self.w_ih, self.w_hh, self.b_ih, self.b_hh
        return step_gru(x, *weights, h_tm1, reset=reset)


class GRU(Backbone):
    """Stacked gated recurrent units.

    Args:
      in_features: width of the input.
      hidden_size: width of each layer.
      num_layers: number of layers.
      horizon: steps that a new network remembers at most; None leaves the biases at zero.
    """

    def __init__(
        self, in_features: int, hidden_size: int, num_layers: int, horizon: int | None = None
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = hidden_size
        widths = [in_features] + [hidden_size] * (num_layers - 1)
        self.layers = nn.ModuleList(GRULayer(width, hidden_size, horizon) for width in widths)

    def initial_state(self, batch: int) -> GRUState:
        """Return zeros."""
        h = empty_state(batch, self.out_features, like=next(self.parameters()))
        return GRUState(h.unsqueeze(1).repeat(1, len(self.layers), 1))

    def forward(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, GRUState]:
        """Read a window; see `Backbone.forward`."""
        assert isinstance(state, GRUState)
        last = []
        for layer, h_0 in zip(self.layers, state.h.unbind(1), strict=True):
            x, h = layer(x, h_0, reset)
            last.append(h)
        return x, GRUState(torch.stack(last, 1))

    def step(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, GRUState]:
        """Read one step; see `Backbone.step`."""
        assert isinstance(state, GRUState)
        last = []
        for layer, h_tm1 in zip(self.layers, state.h.unbind(1), strict=True):
            assert isinstance(layer, GRULayer)
            x, h = layer.step(x, h_tm1, reset)
            last.append(h)
        return x, GRUState(torch.stack(last, 1))


class GRUConfig(SequenceConfig):
    """Options of the gated recurrent unit."""

    hidden_size: int = Field(64, ge=1, description="width of each layer")
    num_layers: int = Field(1, ge=1, description="number of layers")
    horizon: int | None = Field(
        None, ge=3, description="steps that a new network remembers at most: chrono biases"
    )


class GRUPolicy(SequencePolicy):
    """A gated recurrent network."""

    Config: ClassVar[type[Options]] = GRUConfig

    def make_backbone(self, in_features: int) -> GRU:
        """Return the layers."""
        config = self.config
        return GRU(in_features, config.hidden_size, config.num_layers, config.horizon)
