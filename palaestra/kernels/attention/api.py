"""Causal softmax attention with episode resets; README.md holds the formulas."""

import torch
from torch import Tensor

from palaestra.kernels._common.runtime import Impl, choose, choose_step, no_autocast
from palaestra.kernels._common.validate import (
    check_chunk_size,
    check_layout,
    check_reset,
    check_tensor,
    is_empty,
    scale_of,
)
from palaestra.kernels.attention import reference
from palaestra.kernels.attention.context import last_state, make_context
from palaestra.kernels.attention.state import AttentionState, empty_state
from palaestra.kernels.resets import resolve_reset


def chunk_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: int | None = None,
    scale: float | None = None,
    reset: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    initial_state: AttentionState | None = None,
    output_final_state: bool = False,
    chunk_size: int = 64,
    impl: Impl = "auto",
) -> tuple[Tensor, AttentionState | None]:
    """Read T steps at once.

    Args:
      q: queries `[B, T, H, D]`.
      k: keys, of q's shape.
      v: values, of q's shape.
      window: how many steps a query sees, itself included. It is the state's where one is given;
        None without a state is T, or 1 if there is no step.
      scale: factor of the scores; None is D ** -0.5.
      reset: bool `[B, T]`, true where an episode begins; None is no reset.
      cu_seqlens: int `[N + 1]`, borders of episodes packed into one row, instead of `reset`.
      initial_state: keys and values of the running episode; None is an episode's beginning.
      output_final_state: whether to return the state after the last step, else None.
      chunk_size: queries in a block of the reference, a power of two from 16 on.
      impl: "auto", "reference" or "triton".

    Returns:
      `o [B, T, H, D]` and the final state or None.

    Raises:
      ValueError: an `impl` that is unknown or cannot run, or a shape, type or device that does
        not fit.
    """
    _check_window(q, k, v, initial_state, window)
    check_chunk_size(chunk_size)
    B, T = q.shape[:2]
    reset = resolve_reset(reset, cu_seqlens, B, T, q.device)
    window = _window(window, initial_state, T)
    scale, chosen = scale_of(scale, q), choose(impl, q.device)
    if is_empty(q):
        state = initial_state or empty_state(B, q.shape[2], window, q.shape[3], like=q)
        return v.clone(), state if output_final_state else None
    context = make_context(k, v, reset, initial_state, window)
    with no_autocast(q.device):
        if chosen == "triton":
            from palaestra.kernels.attention.triton import chunk

            o = chunk(q, context, scale)
        else:
            o = reference.chunk(q, context, window, scale, chunk_size)
    return o, last_state(context, reset, initial_state, window) if output_final_state else None


def recurrent_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: int | None = None,
    scale: float | None = None,
    reset: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    initial_state: AttentionState | None = None,
    output_final_state: bool = False,
) -> tuple[Tensor, AttentionState | None]:
    """Read T steps one after the other, differentiable; arguments as `chunk_attention`.

    Raises:
      ValueError: a shape, type or device that does not fit.
    """
    _check_window(q, k, v, initial_state, window)
    B, T, H, D = q.shape
    reset = resolve_reset(reset, cu_seqlens, B, T, q.device)
    if initial_state is None:
        initial_state = empty_state(B, H, _window(window, None, T), D, like=q)
    scale = scale_of(scale, q)
    if is_empty(q):
        return v.clone(), initial_state if output_final_state else None
    with no_autocast(q.device):
        o, state = reference.recurrent(q, k, v, reset, initial_state, scale)
    return o, state if output_final_state else None


def step_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: AttentionState,
    *,
    scale: float | None = None,
    reset: Tensor | None = None,
    inplace: bool = False,
    impl: Impl = "auto",
) -> tuple[Tensor, AttentionState]:
    """Read one step.

    Args:
      q: query `[B, H, D]`.
      k: key, of q's shape.
      v: value, of q's shape.
      state: keys and values of the running episode.
      scale: factor of the scores; None is D ** -0.5.
      reset: bool `[B]`, true where an episode begins; None is no reset.
      inplace: write into the tensors of `state` and return it, instead of copying the buffer.
      impl: "auto", "reference" or "triton", which gives no gradients; "auto" is "reference" where
        a gradient is asked for.

    Returns:
      `o [B, H, D]` and the state after the step.

    Raises:
      ValueError: an `impl` that is unknown or cannot run, or a shape, type or device that does
        not fit.
    """
    _check(q, k, v, state, "[B, H, D]")
    reset = check_reset(reset, len(q), q.device)
    scale = scale_of(scale, q)
    if is_empty(q):
        return v.clone(), state
    if choose_step(impl, q, k, v, state.k, state.v) == "triton":
        from palaestra.kernels.attention.triton import step

        return step(q, k, v, reset, state, scale, inplace)
    with no_autocast(q.device):
        return reference.step(q, k, v, reset, state, scale, inplace)


def _window(window: int | None, state: AttentionState | None, T: int) -> int:
    if state is not None:
        return state.window
    return max(T, 1) if window is None else window


def _check_window(
    q: Tensor, k: Tensor, v: Tensor, state: AttentionState | None, window: int | None
) -> None:
    _check(q, k, v, state, "[B, T, H, D]")
    if window is not None and window < 1:
        raise ValueError(f"window: {window} is not 1 or more.")
    if state is not None and window not in (None, state.window):
        raise ValueError(f"window: {window} given, but the state's is {state.window}.")


def _check(q: Tensor, k: Tensor, v: Tensor, state: AttentionState | None, layout: str) -> None:
    check_layout("q", q, layout)
    check_tensor("k", k, q.shape, q.dtype, q.device)
    check_tensor("v", v, q.shape, q.dtype, q.device)
    if state is not None:
        shape = (q.shape[0], q.shape[-2], state.window, q.shape[-1])
        check_tensor("state.k", state.k, shape, q.dtype, q.device)
        check_tensor("state.v", state.v, shape, q.dtype, q.device)
        check_tensor("state.pos", state.pos, shape[:1], torch.int32, q.device)
