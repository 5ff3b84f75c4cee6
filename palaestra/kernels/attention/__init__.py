"""Causal softmax attention with episode resets; see README.md in this folder."""

from palaestra.kernels.attention.api import chunk_attention, recurrent_attention, step_attention
from palaestra.kernels.attention.state import AttentionState, empty_state

__all__ = [
    "AttentionState",
    "chunk_attention",
    "empty_state",
    "recurrent_attention",
    "step_attention",
]
