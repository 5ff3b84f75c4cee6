"""The policy `ema`: leaky integrators, each with a decay rate of its own that is learned."""

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn

from palaestra.policies import Backbone, SequenceConfig, SequencePolicy, State


@dataclass
class EMAState(State):
    """What the integrators hold."""

    h: Tensor  # [B, width]


class EMA(Backbone):
    """h_t = a h_tm1 + (1 - a) W x_t, y_t = tanh(U h_t); an episode starts from h_tm1 = 0."""

    def __init__(self, in_features: int, width: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, width
        self.read, self.write = nn.Linear(in_features, width), nn.Linear(width, width)
        self.a_logit = nn.Parameter(torch.linspace(-1.0, 5.0, width))  # a from 0.27 to 0.99

    def initial_state(self, batch: int) -> EMAState:
        """Return zeros."""
        return EMAState(self.read.weight.new_zeros(batch, self.out_features))

    def forward(self, x: Tensor, state: EMAState, reset: Tensor) -> tuple[Tensor, EMAState]:
        """`x [B, T, C]`, `reset [B, T]` -> `y [B, T, width]` and the state after the window."""
        u, h, hs = self.read(x), state.h, []
        for u_t, reset_t in zip(u.unbind(1), reset.unbind(1), strict=True):
            hs.append(h := self._leak(u_t, h, reset_t))
        return self.write(torch.stack(hs, 1)).tanh(), EMAState(h)

    def step(self, x: Tensor, state: EMAState, reset: Tensor) -> tuple[Tensor, EMAState]:
        """`x [B, C]`, `reset [B]` -> `y [B, width]` and the next state."""
        h = self._leak(self.read(x), state.h, reset)
        return self.write(h).tanh(), EMAState(h)

    def _leak(self, u: Tensor, h_tm1: Tensor, reset: Tensor) -> Tensor:
        a = self.a_logit.sigmoid()
        return a * h_tm1.masked_fill(reset[:, None], 0.0) + (1 - a) * u


class EMAPolicy(SequencePolicy):
    """A memory of leaky integrators with learned decay rates."""

    class Config(SequenceConfig):
        """Options of the leaky integrators."""

        width: int = Field(64, ge=1, description="number of integrators")

    def make_backbone(self, in_features: int) -> EMA:
        """Return the integrators."""
        return EMA(in_features, self.config.width)
