"""The delta rule, plain and gated, with episode resets; see README.md in this folder."""

from palaestra.kernels._common.matrix import empty_state
from palaestra.kernels.delta.api import chunk_delta, recurrent_delta, step_delta

__all__ = ["chunk_delta", "empty_state", "recurrent_delta", "step_delta"]
