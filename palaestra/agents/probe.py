"""Probe: how diagnostics look into a learner without changing it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from palaestra.experience.fragment import Fragment

if TYPE_CHECKING:
    from torch import nn

    from palaestra.agents.optimizers.base import Optimizer


class Probe(Protocol):
    """A learner's networks and optimiser, and its learning-time forward pass.

    Hooks on the modules see the activations of `read`. Whoever changes parameters of units tells
    `optimizer.forget` of them.
    """

    @property
    def networks(self) -> "Mapping[str, nn.Module]":
        """The networks that learn, by name."""

    @property
    def optimizer(self) -> "Optimizer":
        """The optimiser of their parameters."""

    def read(self, fragment: Fragment) -> None:
        """Run the forward pass of learning on a fragment, without gradients or any other effect."""
