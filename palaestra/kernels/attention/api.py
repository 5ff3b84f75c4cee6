"""Causal softmax attention with episode resets; README.md holds the formulas."""

from typing import Literal

import torch
from torch import Tensor

from palaestra.kernels.attention import reference
from palaestra.kernels.attention.state import AttentionState, empty_state

Impl = Literal["auto", "reference"]

IMPLS = ("auto", "reference")
"""Accepted values of `impl`; "auto" is "reference" on every device."""


def chunk_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float | None = None,
    reset: Tensor | None = None,
    initial_state: AttentionState | None = None,
    window: int | None = None,
    output_final_state: bool = False,
    impl: Impl = "auto",
) -> tuple[Tensor, AttentionState | None]:
    """Read T steps at once.

    Args:
      q: queries `[B, T, H, D]`.
      k: keys, of q's shape.
      v: values, of q's shape.
      scale: factor of the scores; None is D ** -0.5.
      reset: bool `[B, T]`, true where an episode begins; None is no reset.
      initial_state: keys and values of the running episode; None is an episode's beginning.
      window: how many steps a query sees, itself included. It is the state's where one is given;
        None without a state is T.
      output_final_state: whether to return the state after the last step, else None.
      impl: "auto" or "reference".

    Returns:
      `o [B, T, H, D]` and the final state or None.

    Raises:
      ValueError: an unknown `impl`, or a shape or type that does not fit.
    """
    _check_impl(impl)
    _check(q, k, v, reset, initial_state, dims=4)
    B, T, H, D = q.shape
    if initial_state is None:
        initial_state = empty_state(B, H, window or T, D, like=q)
    elif window not in (None, initial_state.window):
        raise ValueError(f"window: {window} given, but the state's is {initial_state.window}.")
    if reset is None:
        reset = torch.zeros(B, T, dtype=torch.bool, device=q.device)
    o, state = reference.chunk(q, k, v, reset, initial_state, scale or D**-0.5)
    return o, state if output_final_state else None


def step_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: AttentionState,
    *,
    scale: float | None = None,
    reset: Tensor | None = None,
    impl: Impl = "auto",
) -> tuple[Tensor, AttentionState]:
    """Read one step: `q, k, v [B, H, D]`, `reset [B]` -> `o [B, H, D]` and a new state.

    Raises:
      ValueError: an unknown `impl`, or a shape or type that does not fit.
    """
    _check_impl(impl)
    _check(q, k, v, reset, state, dims=3)
    if reset is None:
        reset = torch.zeros(q.shape[0], dtype=torch.bool, device=q.device)
    return reference.step(q, k, v, reset, state, scale or q.shape[-1] ** -0.5)


def _check_impl(impl: str) -> None:
    if impl not in IMPLS:
        raise ValueError(f"impl: {impl!r} is not accepted: {' or '.join(map(repr, IMPLS))}.")


def _check(
    q: Tensor, k: Tensor, v: Tensor, reset: Tensor | None, state: AttentionState | None, dims: int
) -> None:
    layout = "[B, T, H, D]" if dims == 4 else "[B, H, D]"
    if q.ndim != dims or not q.is_floating_point():
        raise ValueError(f"q: {q.dtype} {list(q.shape)} is not a float tensor {layout}.")
    for name, x in (("k", k), ("v", v)):
        if x.shape != q.shape or x.dtype != q.dtype:
            raise ValueError(f"{name}: {x.dtype} {list(x.shape)} differs from q {list(q.shape)}.")
    if reset is not None and (reset.dtype != torch.bool or reset.shape != q.shape[: dims - 2]):
        expected = list(q.shape[: dims - 2])
        raise ValueError(f"reset: {reset.dtype} {list(reset.shape)} is not bool {expected}.")
    if state is not None:
        fitting = (q.shape[0], q.shape[-2], state.window, q.shape[-1])
        if not (state.k.shape == state.v.shape == fitting and state.k.dtype == q.dtype):
            raise ValueError(
                f"state: keys {state.k.dtype} {list(state.k.shape)} are not {q.dtype} "
                f"{list(fitting)}, as q needs."
            )
