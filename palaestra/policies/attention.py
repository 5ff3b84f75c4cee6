"""A small transformer that remembers the last steps of the episode.

Pre-norm blocks (arXiv 2002.04745) with rotary positions (arXiv 2104.09864) counted from the start
of the episode. A layer sees `context` steps; L layers together see up to L * (context - 1) + 1.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from palaestra.experience.state import State
from palaestra.kernels.attention import (
    AttentionState,
    chunk_attention,
    empty_state,
    step_attention,
)
from palaestra.kernels.resets import positions
from palaestra.options import Options
from palaestra.policies.base import Backbone
from palaestra.policies.sequence import SequenceConfig, SequencePolicy


@dataclass
class LayerState(AttentionState, State):
    """Keys and values of one layer."""


@dataclass
class TransformerState(State):
    """Keys and values of every layer."""

    layers: tuple[LayerState, ...]


class Block(nn.Module):
    """Attention and a perceptron, each added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)
        )

    def forward(
        self, x: Tensor, state: LayerState, reset: Tensor, rotation: Tensor
    ) -> tuple[Tensor, LayerState]:
        """Read a window, `x [B, T, width]`, or one step, `x [B, width]`.

        Args:
          x: the input.
          state: keys and values so far.
          reset: `[B, T]` or `[B]`.
          rotation: `[..., D / 2]` complex, of the steps' positions.
        """
        qkv = self.qkv(self.norm_1(x)).unflatten(-1, (3, self.heads, -1))
        q, k = rotate(qkv[..., :2, :, :], rotation.unsqueeze(-2)).unbind(-3)
        v = qkv[..., 2, :, :]
        new: AttentionState | None
        if reset.ndim == 2:
            o, new = chunk_attention(
                q, k, v, reset=reset, initial_state=state, output_final_state=True
            )
        else:
            o, new = step_attention(q, k, v, state, reset=reset)
        assert new is not None
        x = x + self.out(o.flatten(-2))
        return x + self.mlp(self.norm_2(x)), LayerState(new.k, new.v, new.pos)


class Transformer(Backbone):
    """Pre-norm transformer blocks over the last `context` steps.

    Args:
      in_features: width of the input.
      width: width of the residual stream.
      heads: attention heads of each layer; each is `width / heads` wide.
      layers: number of blocks.
      context: steps that each layer sees, the present one included.
    """

    def __init__(self, in_features: int, width: int, heads: int, layers: int, context: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, width
        self.heads, self.context, self.head_width = heads, context, width // heads
        self.input = nn.Linear(in_features, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def initial_state(self, batch: int) -> TransformerState:
        """Return empty buffers."""
        like = self.input.weight.detach()
        empty = [
            empty_state(batch, self.heads, self.context, self.head_width, like=like)
            for _ in self.blocks
        ]
        return TransformerState(tuple(LayerState(s.k, s.v, s.pos) for s in empty))

    def forward(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, TransformerState]:
        """Read a window; see `Backbone.forward`."""
        return self._read(x, state, reset, lambda pos: positions(reset, pos))

    def step(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, TransformerState]:
        """Read one step; see `Backbone.step`."""
        return self._read(x, state, reset, lambda pos: pos.masked_fill(reset, 0))

    def _read(
        self, x: Tensor, state: State, reset: Tensor, position: Any
    ) -> tuple[Tensor, TransformerState]:
        assert isinstance(state, TransformerState)
        rotation = rotations(position(state.layers[0].pos), self.head_width, x.dtype)
        x = self.input(x)
        new = []
        for block, layer in zip(self.blocks, state.layers, strict=True):
            x, layer = block(x, layer, reset, rotation)
            new.append(layer)
        return self.norm(x), TransformerState(tuple(new))


def rotations(position: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """Return the unit complex numbers that rotate pairs of a head `width` wide.

    Args:
      position: `[...]`, steps since the start of the episode.
      width: of a head, even; gives `[..., width / 2]`.
      dtype: real type of the numbers.
    """
    exponent = torch.arange(0, width, 2, dtype=dtype, device=position.device) / width
    angle = position.unsqueeze(-1) * 10_000.0**-exponent
    return torch.polar(torch.ones_like(angle), angle)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotate each pair of `x [..., H, D]` by `rotation [..., D / 2]`."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * rotation.unsqueeze(-2)).flatten(-2)


class AttentionConfig(SequenceConfig):
    """Options of the transformer."""

    width: int = Field(64, ge=2, description="width of the residual stream")
    heads: int = Field(4, ge=1, description="attention heads of each layer")
    layers: int = Field(2, ge=1, description="number of blocks")
    context: int = Field(64, ge=1, description="steps that each layer sees, the present included")

    @model_validator(mode="after")
    def _heads_are_even(self) -> "AttentionConfig":
        if self.width % (2 * self.heads):
            raise ValueError(f"width has to be a multiple of 2 * heads = {2 * self.heads}")
        return self


class AttentionPolicy(SequencePolicy):
    """A transformer over the last steps of the episode."""

    Config: ClassVar[type[Options]] = AttentionConfig

    def make_backbone(self, in_features: int) -> Transformer:
        """Return the transformer."""
        config = self.config
        return Transformer(in_features, config.width, config.heads, config.layers, config.context)
