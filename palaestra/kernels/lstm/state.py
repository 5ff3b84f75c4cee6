"""The memory of long short-term memory: output and cell of the last step."""

from dataclasses import dataclass

from torch import Tensor

from palaestra.kernels._common import cells


@dataclass
class LstmState:
    """Output and cell, float32, or float64 for float64 inputs."""

    h: Tensor
    """`[B, H]`."""
    c: Tensor
    """`[B, H]`."""


def empty_state(batch: int, width: int, *, like: Tensor | None = None) -> LstmState:
    """Return the state before the first step; `like` gives type and device."""
    h = cells.empty_state(batch, width, like)
    return LstmState(h, h.clone())
