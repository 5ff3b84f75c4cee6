"""RAT: recurrence inside a chunk, softmax over finished chunks; see README.md in this folder."""

from palaestra.kernels.rat.api import chunk_rat, recurrent_rat, step_rat
from palaestra.kernels.rat.state import RatState, empty_state

__all__ = ["RatState", "chunk_rat", "empty_state", "recurrent_rat", "step_rat"]
