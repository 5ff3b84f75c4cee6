"""The contracts of `palaestra.policies`: backbone, policy, and how a policy is built by name."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import gymnasium
import torch
from torch import Tensor, nn

from palaestra.experience.state import State
from palaestra.options import Options, validate
from palaestra.policies.distributions import Distribution
from palaestra.registry import registry

Observation = Tensor | dict[str, Any]
"""A tensor, or a dict of observations, with leading dimensions `[B]` or `[B, T]`."""


class Backbone(nn.Module, ABC):
    """A sequence model with episode resets: the memory of a policy.

    `reset[b, t]` true says that step t is the first of an episode: nothing before it may leak in.
    Stepping T times equals one forward over T steps.
    """

    in_features: int
    out_features: int

    @abstractmethod
    def initial_state(self, batch: int) -> State:
        """Return the state before the first step of `batch` episodes."""

    @abstractmethod
    def forward(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, State]:
        """Read a window of steps.

        Args:
          x: `[B, T, in_features]`.
          state: the state before the window.
          reset: bool `[B, T]`.

        Returns:
          `y [B, T, out_features]` and the state after the window.
        """

    @abstractmethod
    def step(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, State]:
        """Read one step: `x [B, in_features]`, `reset [B]` -> `y [B, out_features]`, state."""


class PolicyOutput(NamedTuple):
    """What a policy says at each step."""

    distribution: Distribution
    value: Tensor
    """Estimated return, `[B]` or `[B, T]`."""


class Policy(nn.Module, ABC):
    """Encoder + backbone + heads: from observations to an action distribution and a value.

    A subclass registered under the kind "policy" is built as `cls(observation_space, action_space,
    config)` with `config` an instance of its `Config`; it raises `UserError` for spaces that it
    cannot take.
    """

    Config: ClassVar[type[Options]]

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
        return validate(registry.get("policy", self.name).Config, self.options, "policy")

    def build(
        self, observation_space: gymnasium.Space, action_space: gymnasium.Space, seed: int = 0
    ) -> Policy:
        """Return a new policy; its weights depend on `seed` alone."""
        # torch's initialisers draw from the global generator: lend it a seed, then give it back.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            cls = registry.get("policy", self.name)
            return cls(observation_space, action_space, self.config())


def make(
    name: str,
    observation_space: gymnasium.Space,
    action_space: gymnasium.Space,
    *,
    seed: int = 0,
    **options: Any,
) -> Policy:
    """Build a policy by its registered name, e.g. `make("gru", obs_space, act_space)`."""
    return PolicySpec(name, options).build(observation_space, action_space, seed)
