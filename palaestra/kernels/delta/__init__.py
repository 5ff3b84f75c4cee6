"""The delta rule, plain and gated, with episode resets; see README.md in this folder."""

from palaestra.kernels.delta.api import chunk_delta, recurrent_delta, step_delta

__all__ = ["chunk_delta", "recurrent_delta", "step_delta"]
