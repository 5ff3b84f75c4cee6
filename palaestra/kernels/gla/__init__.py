"""Gated linear attention with episode resets; see README.md in this folder."""

from palaestra.kernels._common.matrix import empty_state
from palaestra.kernels.gla.api import chunk_gla, recurrent_gla, step_gla
from palaestra.kernels.gla.decays import lightning_decay

__all__ = ["chunk_gla", "empty_state", "lightning_decay", "recurrent_gla", "step_gla"]
