"""Gated linear attention with episode resets; see README.md in this folder."""

from palaestra.kernels.gla.api import chunk_gla, empty_state, recurrent_gla, step_gla
from palaestra.kernels.gla.decays import lightning_decay

__all__ = ["chunk_gla", "empty_state", "lightning_decay", "recurrent_gla", "step_gla"]
