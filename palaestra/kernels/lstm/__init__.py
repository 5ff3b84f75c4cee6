"""Long short-term memory; see README.md in this folder."""

from palaestra.kernels.lstm.api import chunk_lstm, recurrent_lstm, step_lstm
from palaestra.kernels.lstm.state import LstmState, empty_state

__all__ = ["LstmState", "chunk_lstm", "empty_state", "recurrent_lstm", "step_lstm"]
