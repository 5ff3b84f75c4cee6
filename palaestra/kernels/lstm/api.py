"""Long short-term memory (doi 10.1162/neco.1997.9.8.1735) with episode resets.

Weights have the layout of `torch.nn.LSTM`: rows of the input, forget, cell and output gate,
`w_ih [4H, C]`, `w_hh [4H, H]`, `b_ih [4H]`, `b_hh [4H]`. README.md holds the formulas of both
directions.
"""

import torch
from torch import Tensor

from palaestra.kernels.lstm.scan import LSTMScan


def lstm_scan(
    x: Tensor,
    h_0: Tensor,
    c_0: Tensor,
    reset: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor,
    b_hh: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the outputs of every step, `h [T, B, H]`, and the last cell, `c_T [B, H]`.

    Args:
      x: inputs, time-major `[T, B, C]`.
      h_0: `[B, H]`, the output before the window.
      c_0: `[B, H]`, the cell before the window.
      reset: bool `[T, B]`; true = step t is the first of an episode and starts from zeros.
      w_ih: input weights.
      w_hh: recurrent weights.
      b_ih: biases added to the inputs' part.
      b_hh: biases added to the state's part.
    """
    return LSTMScan.apply(x, h_0, c_0, reset, w_ih, w_hh, b_ih, b_hh)


def lstm_step(
    x: Tensor,
    h_tm1: Tensor,
    c_tm1: Tensor,
    reset: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor,
    b_hh: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the next output and cell from `x [B, C]`, `h_tm1, c_tm1 [B, H]` and `reset [B]`."""
    state = [s.masked_fill(reset.unsqueeze(-1), 0) for s in (h_tm1, c_tm1)]
    return torch.lstm_cell(x, state, w_ih, w_hh, b_ih, b_hh)
