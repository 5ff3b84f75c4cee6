"""Long short-term memory (doi 10.1162/neco.1997.9.8.1735) with episode resets.

Weights have the layout of `torch.nn.LSTM`: rows of the input, forget, cell and output gate,
`w_ih [4H, C]`, `w_hh [4H, H]`, `b_ih [4H]`, `b_hh [4H]`. README.md holds the formulas of both
directions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

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
from palaestra.kernels.lstm.scan import LSTMScan
from palaestra.kernels.lstm.state import LstmState, empty_state
from palaestra.kernels.resets import resolve_reset


def chunk_lstm(
    x: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor,
    b_hh: Tensor,
    *,
    reset: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    initial_state: LstmState | None = None,
    output_final_state: bool = False,
    impl: Impl = "auto",
) -> tuple[Tensor, LstmState | None]:
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
      initial_state: output and cell of the running episode; None is zeros.
      output_final_state: whether to return the state after the last step, else None.
      impl: "auto" or "reference".

    Returns:
      The outputs `[B, T, H]` in x's type, and the final state or None.

    Raises:
      ValueError: an argument that does not fit, by name.
    """
    check_impl(impl)
    weights, reset, state = _window(x, w_ih, w_hh, b_ih, b_hh, reset, cu_seqlens, initial_state)
    if is_empty(x):
        return nothing_read(x, w_hh), state if output_final_state else None
    with no_autocast(x.device):
        spoilt = without_gradient(x, reset, state.h, state.c)
        h, c = LSTMScan.apply(time_major(x), state.h, state.c, reset.t(), *weights, spoilt)
    return h.transpose(0, 1).to(x.dtype), LstmState(h[-1], c) if output_final_state else None


def recurrent_lstm(
    x: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor,
    b_hh: Tensor,
    *,
    reset: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    initial_state: LstmState | None = None,
    output_final_state: bool = False,
) -> tuple[Tensor, LstmState | None]:
    """Read T steps one after the other; the same as `chunk_lstm`, slowly."""
    weights, reset, state = _window(x, w_ih, w_hh, b_ih, b_hh, reset, cu_seqlens, initial_state)
    if is_empty(x):
        return nothing_read(x, w_hh), state if output_final_state else None
    hs = []
    with no_autocast(x.device):
        for x_t, reset_t in zip(time_major(x).unbind(), reset.unbind(1), strict=True):
            state = _step(x_t, state, reset_t, weights)
            hs.append(state.h)
    return torch.stack(hs, 1).to(x.dtype), state if output_final_state else None


def step_lstm(
    x: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor,
    b_hh: Tensor,
    state: LstmState,
    *,
    reset: Tensor | None = None,
    impl: Impl = "auto",
) -> tuple[Tensor, LstmState]:
    """Read one step.

    Args:
      x: `[B, C]`.
      w_ih: as `chunk_lstm`.
      w_hh: as `chunk_lstm`.
      b_ih: as `chunk_lstm`.
      b_hh: as `chunk_lstm`.
      state: output and cell of the running episode.
      reset: bool or uint8 `[B]`, true where this step is the first of an episode.
      impl: "auto" or "reference".

    Returns:
      The output `[B, H]` in x's type and the state after the step.

    Raises:
      ValueError: an argument that does not fit, by name.
    """
    check_impl(impl)
    weights = w_ih, w_hh, b_ih, b_hh
    check_inputs(x, "[B, C]", 4, weights)
    _check_state("state", state, x, w_hh)
    reset, acc = check_reset(reset, len(x), x.device), acc_dtype(x.dtype)
    with no_autocast(x.device):
        x_acc, *weights_acc = in_type((x, *weights), acc)
        state = _step(x_acc, state, reset, weights_acc)
    return state.h if x.dtype is acc else state.h.to(x.dtype), state


def _step(x: Tensor, state: LstmState, reset: Tensor, weights: Sequence[Tensor]) -> LstmState:
    first = reset.unsqueeze(-1)
    before = state.h.masked_fill(first, 0), state.c.masked_fill(first, 0)
    return LstmState(*torch.lstm_cell(x, before, *weights))


def _window(
    x: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor,
    b_hh: Tensor,
    reset: Tensor | None,
    cu_seqlens: Tensor | None,
    state: LstmState | None,
) -> tuple[tuple[Tensor, ...], Tensor, LstmState]:
    """Return weights in the type of states, mask and initial state, all checked."""
    weights = w_ih, w_hh, b_ih, b_hh
    check_inputs(x, "[B, T, C]", 4, weights)
    B, T, _ = x.shape
    if state is None:
        state = empty_state(B, w_hh.shape[1], like=x)
    _check_state("initial_state", state, x, w_hh)
    reset = resolve_reset(reset, cu_seqlens, B, T, x.device)
    return in_type(weights, state.h.dtype), reset, state


def _check_state(name: str, state: LstmState, x: Tensor, w_hh: Tensor) -> None:
    shape, acc = (len(x), w_hh.shape[1]), acc_dtype(x.dtype)
    check_tensor(f"{name}.h", state.h, shape, acc, x.device)
    check_tensor(f"{name}.c", state.c, shape, acc, x.device)
