"""Gated recurrent unit; see README.md in this folder."""

from palaestra.kernels.gru.api import chunk_gru, empty_state, recurrent_gru, step_gru

__all__ = ["chunk_gru", "empty_state", "recurrent_gru", "step_gru"]
