"""The contract of a policy, and how policies and torsos are built by name."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import gymnasium
import torch
from torch import Tensor, nn

from palaestra.errors import UserError
from palaestra.experience.state import State
from palaestra.options import Options, validate
from palaestra.policies.backbone import Backbone
from palaestra.policies.distributions import Distribution
from palaestra.policies.encoders import Observation
from palaestra.policies.torso import Torso
from palaestra.registry import registry

__all__ = ["Backbone", "Observation", "Policy", "PolicyOutput", "PolicySpec", "make"]


class PolicyOutput(NamedTuple):
    """What a policy says at each step."""

    distribution: Distribution
    value: Tensor
    """Estimated return, `[B]` or `[B, T]`."""


class Policy(nn.Module, ABC):
    """Torso + heads: from observations to an action distribution and a value.

    A subclass registered under the kind "policy" is built as `cls(observation_space, action_space,
    config)` with `config` an instance of its `Config`; it raises `UserError` for spaces that it
    cannot take.
    """

    Config: ClassVar[type[Options]]

    @classmethod
    def make_torso(cls, observation_space: gymnasium.Space[Any], config: Any) -> Torso:
        """Return encoder and backbone alone, for networks with other heads.

        Args:
          observation_space: of one environment.
          config: an instance of `Config`.

        Raises:
          UserError: a policy without a torso, or a space without an encoder.
        """
        raise UserError(
            f"policy: {cls.__name__} offers no encoder and backbone; accepted: subclasses of "
            "palaestra.policies.SequencePolicy, which define `make_backbone`."
        )

    @cached_property
    def has_memory(self) -> bool:
        """Whether the output depends on earlier steps."""
        return bool(self.initial_state(1).tensors())

    @abstractmethod
    def initial_state(self, batch: int) -> State:
        """Return the state before the first step of `batch` episodes."""

    @abstractmethod
    def forward(
        self, observation: Observation, state: State, reset: Tensor
    ) -> tuple[PolicyOutput, State]:
        """Learning: a window of steps, `[B, T, ...]` with `reset [B, T]`."""

    @abstractmethod
    def step(
        self, observation: Observation, state: State, reset: Tensor
    ) -> tuple[PolicyOutput, State]:
        """Acting: one step, `[B, ...]` with `reset [B]`."""


@dataclass(frozen=True)
class PolicySpec:
    """A policy by name and options; it travels to workers and into checkpoints."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    def config(self) -> Options:
        """Return the checked options.

        Raises:
          UserError: unknown policy name, key, or a value that is not accepted.
        """
        result: Options = validate(registry.get("policy", self.name).Config, self.options, "policy")
        return result

    def build(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        seed: int = 0,
    ) -> Policy:
        """Return a new policy; its weights depend on `seed` alone."""
        with _seeded(seed):
            cls = registry.get("policy", self.name)
            result: Policy = cls(observation_space, action_space, self.config())
            return result

    def build_torso(self, observation_space: gymnasium.Space[Any], seed: int = 0) -> Torso:
        """Return a new torso, for networks with other heads; its weights depend on `seed` alone.

        They are those of the encoder and the backbone in `build`.

        Raises:
          UserError: as `config`, a policy without a torso, a space without an encoder, or the
            option `separate_critic`.
        """
        if self.options.get("separate_critic"):
            raise UserError("policy.separate_critic: a torso has no critic; accepted: false.")
        with _seeded(seed):
            cls: type[Policy] = registry.get("policy", self.name)
            return cls.make_torso(observation_space, self.config())


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    # torch's initialisers draw from the global generator: lend it a seed, then give it back.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def make(
    name: str,
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    *,
    seed: int = 0,
    **options: Any,
) -> Policy:
    """Build a policy by its registered name, e.g. `make("gru", obs_space, act_space)`."""
    return PolicySpec(name, options).build(observation_space, action_space, seed)
