"""Heads: from a backbone's output to an action distribution and a value.

The action head starts with weights of gain 0.01, so that the first policy is nearly uniform and
independent of the observation, which helps on-policy learning much (arXiv 2006.05990, section 3.2).
"""

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

from palaestra.errors import UserError
from palaestra.policies.distributions import (
    Categorical,
    DiagonalGaussian,
    Distribution,
    MultiCategorical,
)
from palaestra.policies.init import orthogonal
from palaestra.policies.layers import project


def linear_in_memory_order(layer: nn.Linear, x: Tensor) -> Tensor:
    """Return `layer(x)` without copying x where `[B, T, C]` is a view of time-major memory.

    Recurrent backbones compute time-major; a plain call would copy their output, and its gradient.
    """
    if x.ndim == 3 and x.stride(0) < x.stride(1):
        return project(layer, x.transpose(0, 1)).transpose(0, 1)
    return project(layer, x)


class ActionHead(nn.Module, ABC):
    """A linear layer that gives the parameters of an action distribution."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        orthogonal(self.linear, 0.01)

    @abstractmethod
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Distribution:
        """`x [..., in_features]` -> distribution; `mask [..., A]` is true where legal."""


class DiscreteHead(ActionHead):
    """Categorical actions."""

    def __init__(self, in_features: int, space: spaces.Discrete) -> None:
        super().__init__(in_features, int(space.n))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Categorical:
        """Return the distribution over the legal actions."""
        return Categorical(
            linear_in_memory_order(self.linear, x), None if mask is None else mask.bool()
        )


class MultiDiscreteHead(ActionHead):
    """Independent categorical actions."""

    def __init__(self, in_features: int, space: spaces.MultiDiscrete) -> None:
        sizes = [int(size) for size in space.nvec]
        super().__init__(in_features, sum(sizes))
        self._sizes = sizes

    def forward(self, x: Tensor, mask: Tensor | None = None) -> MultiCategorical:
        """Return the joint distribution."""
        return MultiCategorical(linear_in_memory_order(self.linear, x), self._sizes)


class BoxHead(ActionHead):
    """Normal actions with a learned standard deviation that no observation changes; 1 at first."""

    def __init__(self, in_features: int, space: spaces.Box) -> None:
        super().__init__(in_features, math.prod(space.shape))
        self.log_std = nn.Parameter(torch.zeros(space.shape))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> DiagonalGaussian:
        """Return the distribution over unclipped actions."""
        mean = linear_in_memory_order(self.linear, x)
        if self.log_std.ndim != 1:
            mean = mean.reshape(*mean.shape[:-1], *self.log_std.shape)
        return DiagonalGaussian(mean, self.log_std)


class ValueHead(nn.Module):
    """A linear estimate of the return."""

    def __init__(self, in_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, 1)
        orthogonal(self.linear, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """`x [..., in_features]` -> `[...]`."""
        return linear_in_memory_order(self.linear, x).squeeze(-1)


def make_action_head(in_features: int, space: Space[Any], *, masked: bool = False) -> ActionHead:
    """Return a new action head for `space`; `masked` says that it will be given action masks.

    Raises:
      UserError: no head acts in this space.
    """
    if isinstance(space, spaces.Discrete) and space.start == 0:
        return DiscreteHead(in_features, space)
    if masked:
        raise UserError(f"action_space: {space} takes no action mask; accepted: Discrete.")
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1 and not space.start.any():
        return MultiDiscreteHead(in_features, space)
    if isinstance(space, spaces.Box) and space.dtype.kind == "f":
        return BoxHead(in_features, space)
    raise UserError(
        f"action_space: {space} has no action head; accepted: Discrete and one-dimensional "
        "MultiDiscrete that start at 0, Box of floats."
    )
