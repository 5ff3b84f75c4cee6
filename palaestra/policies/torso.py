"""Torso: encoder and backbone, what every network that reads observations has below its heads."""

from functools import cached_property

import torch
from torch import Tensor, nn

from palaestra.experience.state import State
from palaestra.policies.backbone import Backbone
from palaestra.policies.encoders import Encoder, Observation


class Torso(nn.Module):
    """From observations to features, with the memory of the backbone.

        torso = PolicySpec("gru", {"hidden_size": 32}).build_torso(observation_space)
        features, state = torso.step(observation, torso.initial_state(8), reset)

    Resets and windows are those of `Backbone`: stepping T times equals one forward over T steps.

    Args:
      encoder: reads observations.
      backbone: reads what the encoder gives.
    """

    def __init__(self, encoder: Encoder, backbone: Backbone) -> None:
        super().__init__()
        self.encoder = encoder
        self.backbone = backbone

    @property
    def out_features(self) -> int:
        """Width of the features."""
        return self.backbone.out_features

    @cached_property
    def has_memory(self) -> bool:
        """Whether the features depend on earlier steps."""
        return bool(self.initial_state(1).tensors())

    def initial_state(self, batch: int) -> State:
        """Return the state before the first step of `batch` episodes."""
        return self.backbone.initial_state(batch)

    def forward(
        self, observation: Observation, state: State, reset: Tensor
    ) -> tuple[Tensor, State]:
        """Read a window, `[B, T, ...]` with `reset [B, T]` -> `[B, T, out_features]`, state."""
        result: tuple[Tensor, State] = self.backbone(self.encode(observation), state, reset)
        return result

    def step(self, observation: Observation, state: State, reset: Tensor) -> tuple[Tensor, State]:
        """Read one step, `[B, ...]` with `reset [B]` -> `[B, out_features]`, state."""
        return self.backbone.step(self.encode(observation), state, reset)

    def encode(self, observation: Observation) -> Tensor:
        """Return what the backbone reads: encoded observations in the number type of its weights.

        Without weights that is torch's default type.
        """
        dtypes = (p.dtype for p in self.parameters())
        result: Tensor = self.encoder(observation).to(next(dtypes, torch.get_default_dtype()))
        return result
