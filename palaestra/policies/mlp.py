"""Multi-layer perceptron: the policy without memory."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from palaestra.experience.state import State
from palaestra.options import Options
from palaestra.policies.backbone import Backbone
from palaestra.policies.init import orthogonal
from palaestra.policies.sequence import SequenceConfig, SequencePolicy

Activation = Literal["tanh", "relu", "silu"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU}


@dataclass
class Stateless(State):
    """The state of a backbone without memory."""


class MLP(Backbone):
    """Fully connected layers with one activation; each step is read alone.

    Args:
      in_features: width of the input.
      hidden_sizes: width of each layer.
      activation: follows every layer.
    """

    def __init__(
        self, in_features: int, hidden_sizes: tuple[int, ...], activation: Activation
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = hidden_sizes[-1]
        layers: list[nn.Module] = []
        for size in hidden_sizes:
            linear = nn.Linear(in_features, size)
            orthogonal(linear, math.sqrt(2))
            layers += [linear, _ACTIVATIONS[activation]()]
            in_features = size
        self.layers = nn.Sequential(*layers)

    def initial_state(self, batch: int) -> Stateless:
        """Return a state without content."""
        return Stateless()

    def forward(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, State]:
        """Read a window; see `Backbone.forward`."""
        return self.layers(x), state

    def step(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, State]:
        """Read one step; see `Backbone.step`."""
        return self.layers(x), state


class MLPConfig(SequenceConfig):
    """Options of the perceptron; the defaults give Stable-Baselines3's MlpPolicy of PPO."""

    separate_critic: bool = Field(
        True, description="give the value its own encoder and layers, sharing nothing"
    )
    hidden_sizes: tuple[int, ...] = Field(
        (64, 64), min_length=1, description="width of each hidden layer"
    )
    activation: Activation = Field("tanh", description="follows every hidden layer")


class MLPPolicy(SequencePolicy):
    """A perceptron without memory."""

    Config: ClassVar[type[Options]] = MLPConfig

    def make_backbone(self, in_features: int) -> MLP:
        """Return the layers."""
        return MLP(in_features, self.config.hidden_sizes, self.config.activation)
