"""SequencePolicy: encoder + backbone + heads; a plug-in overrides `make_backbone` alone."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
from gymnasium import spaces
from pydantic import Field
from torch import Tensor, nn

from palaestra.experience.state import State
from palaestra.options import Options
from palaestra.policies.base import Backbone, Observation, Policy, PolicyOutput
from palaestra.policies.encoders import ACTION_MASK, make_encoder
from palaestra.policies.heads import ValueHead, make_action_head


class SequenceConfig(Options):
    """Options that every sequence policy has."""

    separate_critic: bool = Field(
        False, description="give the value its own encoder and backbone, sharing nothing"
    )


@dataclass
class PairState(State):
    """States of two backbones that share nothing."""

    actor: State
    critic: State


class SequencePolicy(Policy):
    """A policy whose memory is a backbone.

        @register("policy", "my-policy")
        class MyPolicy(SequencePolicy):
            Config = MyConfig  # a subclass of SequenceConfig

            def make_backbone(self, in_features):
                return MyBackbone(in_features, self.config.width)

    Args:
      observation_space, action_space: of one environment. A Dict observation may hold
        `action_mask`, which goes to the action head alone.
      config: an instance of `Config`.

    Raises:
      UserError: spaces without an encoder or an action head.
    """

    Config: ClassVar[type[Options]] = SequenceConfig

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        config: Any,
    ) -> None:
        super().__init__()
        self.config = config
        self._masked = (
            isinstance(observation_space, spaces.Dict) and ACTION_MASK in observation_space.spaces
        )
        self.encoder = make_encoder(observation_space)
        self.backbone = self.make_backbone(self.encoder.out_features)
        self.critic_encoder: nn.Module | None = None
        self.critic_backbone: Backbone | None = None
        if config.separate_critic:
            # An encoder without weights gives both the same features: it runs once.
            if any(True for _ in self.encoder.parameters()):
                self.critic_encoder = make_encoder(observation_space)
            self.critic_backbone = self.make_backbone(self.encoder.out_features)
        width = self.backbone.out_features
        self.action_head = make_action_head(width, action_space, masked=self._masked)
        self.value_head = ValueHead(width)

    @abstractmethod
    def make_backbone(self, in_features: int) -> Backbone:
        """Return a new backbone that reads `in_features` features, built from `self.config`."""

    def initial_state(self, batch: int) -> State:
        """Return the backbone's initial state, or that of both backbones."""
        state = self.backbone.initial_state(batch)
        if self.critic_backbone is None:
            return state
        return PairState(state, self.critic_backbone.initial_state(batch))

    def forward(
        self, observation: Observation, state: State, reset: Tensor
    ) -> tuple[PolicyOutput, State]:
        """Learning: see `Policy.forward`."""
        return self._read("forward", observation, state, reset)

    def step(
        self, observation: Observation, state: State, reset: Tensor
    ) -> tuple[PolicyOutput, State]:
        """Acting: see `Policy.step`."""
        return self._read("step", observation, state, reset)

    def _read(
        self, how: str, observation: Any, state: Any, reset: Tensor
    ) -> tuple[PolicyOutput, State]:
        x = self._encode(self.encoder, observation)
        if self.critic_backbone is None:
            y, state = getattr(self.backbone, how)(x, state, reset)
            y_critic = y
        else:
            y, actor = getattr(self.backbone, how)(x, state.actor, reset)
            if self.critic_encoder is not None:
                x = self._encode(self.critic_encoder, observation)
            y_critic, critic = getattr(self.critic_backbone, how)(x, state.critic, reset)
            state = PairState(actor, critic)
        mask = observation[ACTION_MASK] if self._masked else None
        return PolicyOutput(self.action_head(y, mask), self.value_head(y_critic)), state

    def _encode(self, encoder: nn.Module, observation: Any) -> Tensor:
        return encoder(observation).to(self.value_head.linear.weight.dtype)
