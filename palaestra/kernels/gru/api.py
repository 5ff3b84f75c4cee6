"""The gated recurrent unit (arXiv 1406.1078) with episode resets.

Weights have the layout of `torch.nn.GRU`: rows of the reset, update and new gate, `w_ih [3H, C]`,
`w_hh [3H, H]`, `b_ih [3H]`, `b_hh [3H]`. README.md holds the formulas of both directions.
"""

import torch
from torch import Tensor

from palaestra.kernels.gru.scan import GRUScan


def gru_scan(
    x: Tensor, h_0: Tensor, reset: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor
) -> Tensor:
    """Return the hidden states of every step, `[T, B, H]`.

    Args:
      x: inputs, time-major `[T, B, C]`.
      h_0: `[B, H]`, the state before the window.
      reset: bool `[T, B]`; true = step t is the first of an episode and starts from zeros.
      w_ih: input weights.
      w_hh: recurrent weights.
      b_ih: biases added to the inputs' part.
      b_hh: biases added to the state's part.
    """
    return GRUScan.apply(x, h_0, reset, w_ih, w_hh, b_ih, b_hh)


def gru_step(
    x: Tensor, h_tm1: Tensor, reset: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor
) -> Tensor:
    """Return the next hidden state `[B, H]` from `x [B, C]`, `h_tm1 [B, H]` and `reset [B]`."""
    h_tm1 = h_tm1.masked_fill(reset.unsqueeze(-1), 0)
    return torch.gru_cell(x, h_tm1, w_ih, w_hh, b_ih, b_hh)
