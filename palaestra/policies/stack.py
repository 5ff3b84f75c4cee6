"""A backbone of pre-norm blocks, each with a mixer of its own, and the policies built on it."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self, cast

from pydantic import Field, model_validator
from torch import Tensor, nn

from palaestra.experience.state import State
from palaestra.options import Options
from palaestra.policies.backbone import Backbone
from palaestra.policies.block import Block
from palaestra.policies.layers import fan_in_linear, project
from palaestra.policies.sequence import SequenceConfig, SequencePolicy


@dataclass
class StackState(State):
    """The state of every block's mixer."""

    layers: tuple[State, ...]


class Stack(Backbone):
    """Input projection, blocks, final norm.

    What is added to the residual stream starts with a variance of 1 / blocks.

    Args:
      in_features: width of the input.
      mixers: one for each block, all equally wide.
      expansion: width of each block's perceptron, as a multiple of the block's.
    """

    def __init__(self, in_features: int, mixers: Sequence[Backbone], expansion: int = 3) -> None:
        super().__init__()
        width, gain = mixers[0].in_features, len(mixers) ** -0.5
        self.in_features, self.out_features = in_features, width
        self.input = fan_in_linear(in_features, width)
        self.blocks = nn.ModuleList(Block(mixer, gain, expansion) for mixer in mixers)
        self.norm = nn.RMSNorm(width, 1e-6)

    def initial_state(self, batch: int) -> StackState:
        """Return the mixers' initial states."""
        return StackState(tuple(block.mixer.initial_state(batch) for block in self._blocks()))

    def forward(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, StackState]:
        """Read a window; see `Backbone.forward`."""
        assert isinstance(state, StackState)
        x, new = project(self.input, x), []
        for block, layer in zip(self._blocks(), state.layers, strict=True):
            x, layer = block(x, layer, reset)
            new.append(layer)
        return self.norm(x), StackState(tuple(new))

    def step(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, StackState]:
        """Read one step; see `Backbone.step`."""
        assert isinstance(state, StackState)
        x, new = project(self.input, x), []
        for block, layer in zip(self._blocks(), state.layers, strict=True):
            x, layer = block.step(x, layer, reset)
            new.append(layer)
        return self.norm(x), StackState(tuple(new))

    def _blocks(self) -> list[Block]:
        return cast(list[Block], list(self.blocks))


class BlockConfig(SequenceConfig):
    """Options of the blocks, whatever is in them."""

    width: int = Field(64, ge=2, description="width of the residual stream")
    heads: int = Field(4, ge=1, description="heads of each layer; each is width / heads wide")
    expansion: int = Field(3, ge=1, description="width of each block's perceptron / width")

    @model_validator(mode="after")
    def _heads_are_even(self) -> Self:
        # Rotation turns pairs.
        if self.width % (2 * self.heads):
            raise ValueError(f"width has to be a multiple of 2 * heads = {2 * self.heads}")
        return self


class StackConfig(BlockConfig):
    """Options of every backbone of equal blocks."""

    layers: int = Field(2, ge=1, description="number of blocks")


class StackPolicy(SequencePolicy):
    """A policy whose memory is a stack; a subclass names the mixers."""

    Config: ClassVar[type[Options]] = StackConfig

    @abstractmethod
    def make_mixers(self) -> list[Backbone]:
        """Return the mixer of each block, built from `self.config`."""

    def make_backbone(self, in_features: int) -> Stack:
        """Return the stack."""
        return Stack(in_features, self.make_mixers(), self.config.expansion)
