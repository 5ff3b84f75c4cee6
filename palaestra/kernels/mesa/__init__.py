"""Mesa: at each step ridge regression on the episode so far; see README.md in this folder."""

from palaestra.kernels.mesa.api import chunk_mesa, recurrent_mesa, step_mesa
from palaestra.kernels.mesa.state import MesaResiduals, MesaState, empty_state

__all__ = [
    "MesaResiduals",
    "MesaState",
    "chunk_mesa",
    "empty_state",
    "recurrent_mesa",
    "step_mesa",
]
