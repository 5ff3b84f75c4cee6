"""Gated recurrent unit: the smallest memory."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from palaestra.experience.state import State
from palaestra.kernels.gru import gru_scan, gru_step
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

    def forward(self, x: Tensor, h_0: Tensor, reset: Tensor) -> Tensor:
        """`x [T, B, C]`, `h_0 [B, H]`, `reset [T, B]` -> `[T, B, H]`."""
        return gru_scan(x, h_0, reset, self.w_ih, self.w_hh, self.b_ih, self.b_hh)

    def step(self, x: Tensor, h_tm1: Tensor, reset: Tensor) -> Tensor:
        """`x [B, C]`, `h_tm1 [B, H]`, `reset [B]` -> `[B, H]`."""
        return gru_step(x, h_tm1, reset, self.w_ih, self.w_hh, self.b_ih, self.b_hh)


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
        weight = next(self.parameters())
        return GRUState(weight.new_zeros(batch, len(self.layers), self.out_features))

    def forward(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, GRUState]:
        """Read a window; see `Backbone.forward`."""
        assert isinstance(state, GRUState)
        y, reset = x.transpose(0, 1), reset.t()
        last = []
        for layer, h_0 in zip(self.layers, state.h.unbind(1), strict=True):
            y = layer(y, h_0, reset)
            last.append(y[-1])
        return y.transpose(0, 1), GRUState(torch.stack(last, 1))

    def step(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, GRUState]:
        """Read one step; see `Backbone.step`."""
        assert isinstance(state, GRUState)
        last = []
        for layer, h_tm1 in zip(self.layers, state.h.unbind(1), strict=True):
            assert isinstance(layer, GRULayer)
            x = layer.step(x, h_tm1, reset)
            last.append(x)
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
