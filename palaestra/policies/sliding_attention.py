"""Softmax attention over the last steps of the episode, as a mixer and as a policy."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from palaestra.experience.state import State
from palaestra.kernels.attention import (
    AttentionState,
    chunk_attention,
    empty_state,
    step_attention,
)
from palaestra.kernels.resets import positions
from palaestra.kernels.rotary import rotate
from palaestra.options import Options
from palaestra.policies.backbone import Backbone
from palaestra.policies.layers import fan_in_linear, project
from palaestra.policies.stack import StackConfig, StackPolicy


class AttentionOptions(Options):
    """Options of local attention."""

    window: int = Field(16, ge=1, description="steps that attention sees, the present included")


class AttentionMixer(Backbone):
    """Attention with rotary positions (arXiv 2104.09864) counted from the start of the episode.

    Args:
      width: of input and output.
      heads: number of heads.
      options: the window.
    """

    def __init__(self, width: int, heads: int, options: AttentionOptions) -> None:
        super().__init__()
        self.in_features = self.out_features = width
        self.heads, self.window = heads, options.window
        self.qkv = fan_in_linear(width, 3 * width)

    def initial_state(self, batch: int) -> AttentionState:
        """Return an empty buffer."""
        head_width, like = self.in_features // self.heads, self.qkv.weight.detach()
        return empty_state(batch, self.heads, self.window, head_width, like=like)

    def forward(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, AttentionState]:
        """Read a window; see `Backbone.forward`."""
        assert isinstance(state, AttentionState)
        q, k, v = self._project(x, positions(reset, state.pos))
        o, new = chunk_attention(q, k, v, reset=reset, initial_state=state, output_final_state=True)
        assert new is not None
        return o.flatten(-2), new

    def step(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, AttentionState]:
        """Read one step; see `Backbone.step`."""
        assert isinstance(state, AttentionState)
        q, k, v = self._project(x, state.pos.masked_fill(reset, 0))
        o, new = step_attention(q, k, v, state, reset=reset)
        return o.flatten(-2), new

    def _project(self, x: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = project(self.qkv, x).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        q, k = rotate(torch.stack([q, k]), position.unsqueeze(-1)).unbind()
        return q, k, v


class SlidingAttentionConfig(StackConfig, AttentionOptions):
    """Options of local attention in every block."""


class SlidingAttentionPolicy(StackPolicy):
    """Attention over a sliding window in every block."""

    Config: ClassVar[type[Options]] = SlidingAttentionConfig

    def make_mixers(self) -> list[Backbone]:
        """Return attention for every block."""
        c = self.config
        return [AttentionMixer(c.width, c.heads, c) for _ in range(c.layers)]
