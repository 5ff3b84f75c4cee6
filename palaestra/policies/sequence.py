"""SequencePolicy: torso + action head + value head; a plug-in defines `make_backbone` alone."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
from gymnasium import spaces
from pydantic import Field
from torch import Tensor, nn

from palaestra.experience.state import State
from palaestra.options import Options
from palaestra.policies.backbone import Backbone
from palaestra.policies.base import Policy, PolicyOutput
from palaestra.policies.encoders import ACTION_MASK, Encoder, Observation, make_encoder
from palaestra.policies.heads import ValueHead, make_action_head
from palaestra.policies.torso import Torso


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
        torso = self._new_torso(observation_space)
        self.encoder, self.backbone = torso.encoder, torso.backbone
        self.critic_encoder: Encoder | None = None
        self.critic_backbone: Backbone | None = None
        critic = torso
        if config.separate_critic:
            critic = self._new_torso(observation_space)
            if any(True for _ in critic.encoder.parameters()):
                self.critic_encoder = critic.encoder
            else:
                critic.encoder = torso.encoder
            self.critic_backbone = critic.backbone
        # In a tuple, which torch does not search: parameters have their names from the parts.
        self._torsos = torso, critic
        width = torso.out_features
        self.action_head = make_action_head(width, action_space, masked=self._masked)
        self.value_head = ValueHead(width)

    @abstractmethod
    def make_backbone(self, in_features: int) -> Backbone:
        """Return a new backbone that reads `in_features` features, built from `self.config`."""

    @classmethod
    def make_torso(cls, observation_space: gymnasium.Space[Any], config: Any) -> Torso:
        """Return encoder and backbone alone; see `Policy.make_torso`."""
        # `make_backbone` reads `self.config` alone: this object has no encoder and no heads.
        maker = cls.__new__(cls)
        nn.Module.__init__(maker)
        maker.config = config
        return maker._new_torso(observation_space)

    @property
    def torso(self) -> Torso:
        """The encoder and the backbone below the action head."""
        return self._torsos[0]

    def initial_state(self, batch: int) -> State:
        """Return the backbone's initial state, or that of both backbones."""
        torso, critic = self._torsos
        if critic is torso:
            return torso.initial_state(batch)
        return PairState(torso.initial_state(batch), critic.initial_state(batch))

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

    def _new_torso(self, observation_space: gymnasium.Space[Any]) -> Torso:
        encoder = make_encoder(observation_space)
        return Torso(encoder, self.make_backbone(encoder.out_features))

    def _read(
        self, how: str, observation: Any, state: Any, reset: Tensor
    ) -> tuple[PolicyOutput, State]:
        torso, critic = self._torsos
        if critic is torso:
            y, state = getattr(torso, how)(observation, state, reset)
            y_critic = y
        else:
            y, actor_state = getattr(torso, how)(observation, state.actor, reset)
            y_critic, critic_state = getattr(critic, how)(observation, state.critic, reset)
            state = PairState(actor_state, critic_state)
        mask = observation[ACTION_MASK] if self._masked else None
        return PolicyOutput(self.action_head(y, mask), self.value_head(y_critic)), state
