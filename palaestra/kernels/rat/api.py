"""RAT: recurrence inside a chunk, softmax over finished chunks; README.md holds the formulas."""

import torch
from torch import Tensor

from palaestra.kernels._common.runtime import Impl, acc_dtype, choose, choose_step, no_autocast
from palaestra.kernels._common.validate import (
    check_layout,
    check_reset,
    check_tensor,
    describe,
    is_empty,
    scale_of,
)
from palaestra.kernels.rat import reference
from palaestra.kernels.rat.state import RatState, empty_state
from palaestra.kernels.resets import resolve_reset

CHUNK_LENGTH = 16
"""Steps of a chunk in the main results of arXiv 2507.04416."""
ROPE_BASE = 10_000.0
"""Base of the rotary positions."""


def chunk_rat(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    *,
    chunk_length: int = CHUNK_LENGTH,
    scale: float | None = None,
    rope_base: float | None = ROPE_BASE,
    reset: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    initial_state: RatState | None = None,
    capacity: int | None = None,
    output_final_state: bool = False,
    impl: Impl = "auto",
) -> tuple[Tensor, RatState | None]:
    """Read T steps at once.

    Args:
      q: queries `[B, T, G, D]`; head h takes group h mod G.
      k: keys, of q's shape.
      v: values `[B, T, H, D]`, H a multiple of G.
      g: gates in [0, 1], of v's shape: how much of the running key and value is kept; float32 is
        accepted beside q's type.
      chunk_length: steps of a chunk, counted from the start of the episode.
      scale: factor of the scores; None is D ** -0.5.
      rope_base: base of the rotary positions, which count chunks; None is no rotation.
      reset: bool or uint8 `[B, T]`, true where an episode begins; None is no reset.
      cu_seqlens: `[N + 1]`, the bounds of N packed episodes in one row, instead of `reset`.
      initial_state: chunks of the running episode; None is an episode's beginning. Gradients reach
        its running key and value, not its finished chunks.
      capacity: how many finished chunks a query sees. It is the state's where one is given; None
        without a state is as many as T steps hold.
      output_final_state: whether to return the state after the last step, else None.
      impl: "auto", "reference" or "triton".

    Returns:
      `o [B, T, H, D]` in q's type and the final state or None.

    Raises:
      ValueError: an argument that does not fit, by name.
    """
    how = choose(impl, q.device)
    check_layout("q", q, "[B, T, G, D]")
    B, T = q.shape[:2]
    reset = resolve_reset(reset, cu_seqlens, B, T, q.device)
    carried = initial_state is not None
    state = _state(q, k, v, g, initial_state, chunk_length, rope_base, capacity)
    if carried:
        state.k_end, state.v_end = state.k_end.detach(), state.v_end.detach()
    scale = scale_of(scale, q)
    if is_empty(q):
        return v.clone(), state if output_final_state else None
    arguments = (q, k, v, g, reset, state, chunk_length, scale, rope_base, carried)
    with no_autocast(q.device):
        if how == "triton":
            from palaestra.kernels.rat import triton

            o, new = triton.chunk(*arguments)
        else:
            o, new = reference.chunk(*arguments)
    return o, new if output_final_state else None


def recurrent_rat(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    *,
    chunk_length: int = CHUNK_LENGTH,
    scale: float | None = None,
    rope_base: float | None = ROPE_BASE,
    reset: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    initial_state: RatState | None = None,
    capacity: int | None = None,
    output_final_state: bool = False,
) -> tuple[Tensor, RatState | None]:
    """Read T steps one by one; the specification of `chunk_rat`, with the same arguments."""
    check_layout("q", q, "[B, T, G, D]")
    B, T = q.shape[:2]
    reset = resolve_reset(reset, cu_seqlens, B, T, q.device)
    state = _state(q, k, v, g, initial_state, chunk_length, rope_base, capacity)
    state.k_end, state.v_end = state.k_end.detach(), state.v_end.detach()
    scale = scale_of(scale, q)
    if is_empty(q):
        return v.clone(), state if output_final_state else None
    with no_autocast(q.device):
        o, new = reference.recurrent(q, k, v, g, reset, state, chunk_length, scale, rope_base)
    return o, new if output_final_state else None


def step_rat(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    state: RatState,
    *,
    chunk_length: int = CHUNK_LENGTH,
    scale: float | None = None,
    rope_base: float | None = ROPE_BASE,
    reset: Tensor | None = None,
    inplace: bool = False,
    impl: Impl = "auto",
) -> tuple[Tensor, RatState]:
    """Read one step.

    Args:
      q: query `[B, G, D]`.
      k: key, of q's shape.
      v: value `[B, H, D]`.
      g: gate, of v's shape.
      state: chunks of the running episode.
      chunk_length: as `chunk_rat`.
      scale: as `chunk_rat`.
      rope_base: as `chunk_rat`.
      reset: bool or uint8 `[B]`, true where an episode begins; None is no reset.
      inplace: write into the tensors of `state` and return it, without gradients, instead of
        leaving it as it was.
      impl: "auto", "reference" or "triton", which gives no gradients; "auto" is "reference" where
        a gradient is asked for.

    Returns:
      `o [B, H, D]` and the state after the step.

    Raises:
      ValueError: an argument that does not fit, by name.
    """
    check_layout("q", q, "[B, G, D]")
    reset = check_reset(reset, q.shape[0], q.device)
    _state(q, k, v, g, state, chunk_length, rope_base, None)
    if is_empty(q):
        return v.clone(), state
    arguments = (q, k, v, g, reset, state, chunk_length, scale_of(scale, q), rope_base, inplace)
    carried = (state.k_end, state.v_end, state.k_run, state.v_run)
    if choose_step(impl, q, k, v, g, *carried) == "triton":
        from palaestra.kernels.rat.triton_step import step

        return step(*arguments)
    with no_autocast(q.device):
        return reference.step(*arguments)


def _state(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    state: RatState | None,
    chunk_length: int,
    rope_base: float | None,
    capacity: int | None,
) -> RatState:
    """Check everything but q's layout and the resets; return the state, a new object."""
    (*outer, G, D), acc = q.shape, acc_dtype(q.dtype)
    check_tensor("k", k, q.shape, q.dtype, q.device)
    if v.ndim != q.ndim or v.shape[-2] % G:
        raise ValueError(f"v: {describe(v)} does not hold a multiple of q's {G} groups as heads.")
    H = v.shape[-2]
    check_tensor("v", v, (*outer, H, D), q.dtype, q.device)
    check_tensor("g", g, v.shape, (q.dtype, acc), q.device)
    if chunk_length < 1:
        raise ValueError(f"chunk_length: {chunk_length} is not at least 1.")
    if rope_base is not None and D % 2:
        raise ValueError(f"rope_base: pairs need an even width, q's is {D}; None is no rotation.")
    if state is None:
        C = max(1, -(-outer[1] // chunk_length)) if capacity is None else capacity
        if C < 1:
            raise ValueError(f"capacity: {C} is not at least 1.")
        return empty_state(outer[0], H, C, D, like=q)
    C = state.capacity
    if capacity not in (None, C):
        raise ValueError(f"capacity: {capacity} given, but the state's is {C}.")
    for name, shape, dtype in (
        ("k_end", (outer[0], H, C, D), q.dtype),
        ("v_end", (outer[0], H, C, D), q.dtype),
        ("k_run", (outer[0], H, D), acc),
        ("v_run", (outer[0], H, D), acc),
        ("pos", (outer[0],), torch.int32),
    ):
        check_tensor(f"state.{name}", getattr(state, name), shape, dtype, q.device)
    return RatState(state.k_end, state.v_end, state.k_run, state.v_run, state.pos)
