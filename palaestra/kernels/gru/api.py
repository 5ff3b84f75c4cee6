"""The gated recurrent unit (arXiv 1406.1078) with episode resets.

Weights have the layout of `torch.nn.GRU`: rows of the reset, update and new gate, `w_ih [3H, C]`,
`w_hh [3H, H]`, `b_ih [3H]`, `b_hh [3H]`. README.md holds the formulas of both directions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from palaestra.kernels._common import cells
from palaestra.kernels._common.cells import (
    check_impl,
    check_inputs,
    in_type,
    nothing_read,
    time_major,
    without_gradient,
)
from palaestra.kernels._common.runtime import Impl, acc_dtype, no_autocast
from palaestra.kernels._common.validate import check_reset, check_tensor, is_empty
from palaestra.kernels.gru.scan import GRUScan
from palaestra.kernels.resets import resolve_reset


def empty_state(batch: int, width: int, *, like: Tensor | None = None) -> Tensor:
    """Return the hidden state before the first step, `[B, H]`; `like` gives type and device."""
    return cells.empty_state(batch, width, like)


def chunk_gru(
    x: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor,
    b_hh: Tensor,
    *,
    reset: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    impl: Impl = "auto",
) -> tuple[Tensor, Tensor | None]:
    """Read T steps at once.

    Sums are float32, or float64 for float64 inputs. A step that sees a number that is not finite,
    in its episode, gives no gradient.

    Args:
      x: inputs `[B, T, C]`.
      w_ih: input weights, of x's type or float32, as all weights.
      w_hh: recurrent weights.
      b_ih: biases added to the inputs' part.
      b_hh: biases added to the state's part.
      reset: bool or uint8 `[B, T]`, true where an episode begins; None is no reset.
      cu_seqlens: int32 or int64 `[N + 1]`, the same for N episodes packed into one row.
      initial_state: the running episode's `[B, H]`, float32 (float64 for float64 inputs); None is
        zeros.
      output_final_state: whether to return the state after the last step, else None.
      impl: "auto" or "reference".

    Returns:
      The hidden states `[B, T, H]` in x's type, and the final state or None.

    Raises:
      ValueError: an argument that does not fit, by name.
    """
    check_impl(impl)
    weights, reset, h_0 = _window(x, w_ih, w_hh, b_ih, b_hh, reset, cu_seqlens, initial_state)
    if is_empty(x):
        return nothing_read(x, w_hh), h_0 if output_final_state else None
    with no_autocast(x.device):
        spoilt = without_gradient(x, reset, h_0)
        h = GRUScan.apply(time_major(x), h_0, reset.t(), *weights, spoilt)
    return h.transpose(0, 1).to(x.dtype), h[-1] if output_final_state else None


def recurrent_gru(
    x: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor,
    b_hh: Tensor,
    *,
    reset: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Read T steps one after the other; the same as `chunk_gru`, slowly."""
    weights, reset, h_t = _window(x, w_ih, w_hh, b_ih, b_hh, reset, cu_seqlens, initial_state)
    if is_empty(x):
        return nothing_read(x, w_hh), h_t if output_final_state else None
    hs = []
    with no_autocast(x.device):
        for x_t, reset_t in zip(time_major(x).unbind(), reset.unbind(1), strict=True):
            h_t = _step(x_t, h_t, reset_t, weights)
            hs.append(h_t)
    return torch.stack(hs, 1).to(x.dtype), h_t if output_final_state else None


def step_gru(
    x: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor,
    b_hh: Tensor,
    state: Tensor,
    *,
    reset: Tensor | None = None,
    impl: Impl = "auto",
) -> tuple[Tensor, Tensor]:
    """Read one step.

    Args:
      x: `[B, C]`.
      w_ih: as `chunk_gru`.
      w_hh: as `chunk_gru`.
      b_ih: as `chunk_gru`.
      b_hh: as `chunk_gru`.
      state: `[B, H]`.
      reset: bool or uint8 `[B]`, true where this step is the first of an episode.
      impl: "auto" or "reference".

    Returns:
      The hidden state `[B, H]` in x's type, and as the state after the step.

    Raises:
      ValueError: an argument that does not fit, by name.
    """
    check_impl(impl)
    weights = w_ih, w_hh, b_ih, b_hh
    check_inputs(x, "[B, C]", 3, weights)
    acc = acc_dtype(x.dtype)
    check_tensor("state", state, (len(x), w_hh.shape[1]), acc, x.device)
    reset = check_reset(reset, len(x), x.device)
    with no_autocast(x.device):
        x_acc, *weights_acc = in_type((x, *weights), acc)
        h = _step(x_acc, state, reset, weights_acc)
    return h if x.dtype is acc else h.to(x.dtype), h


def _step(x: Tensor, h_tm1: Tensor, reset: Tensor, weights: Sequence[Tensor]) -> Tensor:
    return torch.gru_cell(x, h_tm1.masked_fill(reset.unsqueeze(-1), 0), *weights)


def _window(
    x: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor,
    b_hh: Tensor,
    reset: Tensor | None,
    cu_seqlens: Tensor | None,
    state: Tensor | None,
) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """Return weights in the type of states, mask and initial state, all checked."""
    weights = w_ih, w_hh, b_ih, b_hh
    check_inputs(x, "[B, T, C]", 3, weights)
    (B, T, _), acc, H = x.shape, acc_dtype(x.dtype), w_hh.shape[1]
    if state is None:
        state = empty_state(B, H, like=x)
    check_tensor("initial_state", state, (B, H), acc, x.device)
    reset = resolve_reset(reset, cu_seqlens, B, T, x.device)
    return in_type(weights, acc), reset, state
