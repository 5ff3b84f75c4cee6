"""Long short-term memory; see README.md in this folder."""

from palaestra.kernels.lstm.api import lstm_scan, lstm_step

__all__ = ["lstm_scan", "lstm_step"]
