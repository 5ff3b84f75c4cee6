"""The contract of a backbone: the memory of a policy."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from palaestra.experience.state import State


class Backbone(nn.Module, ABC):
    """A sequence model with episode resets: the memory of a policy.

    `reset[b, t]` true says that step t is the first of an episode: nothing before it may leak in.
    Stepping T times equals one forward over T steps.
    """

    in_features: int
    out_features: int

    @abstractmethod
    def initial_state(self, batch: int) -> State:
        """Return the state before the first step of `batch` episodes, on the weights' device."""

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
