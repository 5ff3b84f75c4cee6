"""Gated recurrent unit; see README.md in this folder."""

from palaestra.kernels.gru.api import gru_scan, gru_step

__all__ = ["gru_scan", "gru_step"]
