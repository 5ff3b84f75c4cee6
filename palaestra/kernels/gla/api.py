"""Gated linear attention with episode resets; README.md holds the formulas.

Linear attention (arXiv 2006.16236), Lightning Attention-2 (arXiv 2401.04658) and gated linear
attention (arXiv 2312.06635) differ in their log decay g alone.
"""

import torch
from torch import Tensor

from palaestra.kernels._common.matrix import check_state, window
from palaestra.kernels._common.runtime import Impl, choose, choose_step, no_autocast
from palaestra.kernels._common.validate import (
    check_chunk_size,
    check_qkv,
    check_reset,
    check_tensor,
    describe,
    is_empty,
    scale_of,
)
from palaestra.kernels.gla import reference
from palaestra.kernels.gla.chunk import chunk

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def chunk_gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None = None,
    *,
    scale: float | None = None,
    reset: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    chunk_size: int = 64,
    impl: Impl = "auto",
) -> tuple[Tensor, Tensor | None]:
    """Read T steps at once.

    A step whose numbers are not finite makes NaN of what sees it, and of nothing after a reset.

    Args:
      q: queries `[B, T, H, K]`.
      k: keys, of q's shape.
      v: values `[B, T, H, V]`.
      g: log decay, at most 0: `[B, T, H]` for one of each head, `[B, T, H, K]` for one of each
        channel of the keys, None for none. Not read at resets. Minus infinity forgets everything;
        above 0 it counts as a number that is not finite.
      scale: factor of the outputs; None is K ** -0.5.
      reset: bool or uint8 `[B, T]`, true where an episode begins.
      cu_seqlens: int32 or int64 `[N + 1]`, where each of N episodes begins in the one row, and T;
        instead of `reset`.
      initial_state: `[B, H, K, V]` of the running episode, float32, or float64 with float64 inputs;
        None is zeros.
      output_final_state: whether to return the state after the last step, else None.
      chunk_size: tokens of a chunk, a power of two from 16 on, at most; it changes speed and
        rounding alone. Triton takes 64 at most; where the decay is per channel, it takes 16 and the
        reference 32.
      impl: "reference", "triton", or "auto", which picks by device.

    Returns:
      `o [B, T, H, V]` of q's type, and the final state or None.

    Raises:
      ValueError: an argument that does not fit.
    """
    chosen = choose(impl, q.device)
    check_chunk_size(chunk_size)
    _check(q, k, v, g, "[B, T, H, K]")
    reset, state = window(q, v, reset, cu_seqlens, initial_state)
    scale = scale_of(scale, q)
    if is_empty(q):
        return v.clone(), state if output_final_state else None
    with no_autocast(q.device):
        if chosen == "triton":
            from palaestra.kernels.gla.triton import chunk as chunk_triton

            o, state = chunk_triton(q, k, v, g, reset, state, scale, chunk_size)
        else:
            o, state = chunk(q, k, v, g, reset, state, scale, chunk_size)
    return o, state if output_final_state else None


def recurrent_gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None = None,
    *,
    scale: float | None = None,
    reset: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Read T steps one after the other; the same as `chunk_gla`, slowly."""
    _check(q, k, v, g, "[B, T, H, K]")
    reset, state = window(q, v, reset, cu_seqlens, initial_state)
    scale = scale_of(scale, q)
    if is_empty(q):
        return v.clone(), state if output_final_state else None
    with no_autocast(q.device):
        o, state = reference.loop(q, k, v, g, reset, state, scale)
    return o, state if output_final_state else None


def step_gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    state: Tensor,
    *,
    scale: float | None = None,
    reset: Tensor | None = None,
    inplace: bool = False,
    impl: Impl = "auto",
) -> tuple[Tensor, Tensor]:
    """Read one step.

    Args:
      q: `[B, H, K]`.
      k: `[B, H, K]`.
      v: `[B, H, V]`.
      g: `[B, H]`, `[B, H, K]` or None.
      state: `[B, H, K, V]`.
      scale: factor of the output; None is K ** -0.5.
      reset: bool or uint8 `[B]`, true where this step is the first of an episode.
      inplace: write into `state` and return it, without gradients, instead of leaving it as it was.
      impl: "auto", "reference" or "triton", which gives no gradients; "auto" is "reference" where
        a gradient is asked for.

    Returns:
      `o [B, H, V]` of q's type and the state after the step.

    Raises:
      ValueError: an argument that does not fit.
    """
    _check(q, k, v, g, "[B, H, K]")
    check_state("state", state, q, v)
    reset = check_reset(reset, q.shape[0], q.device)
    scale = scale_of(scale, q)
    if is_empty(q):
        return v.clone(), state
    if choose_step(impl, q, k, v, g, state) == "triton":
        from palaestra.kernels.gla.triton_step import step

        return step(q, k, v, g, reset, state, scale, inplace)
    with no_autocast(q.device):
        o, state = reference.step(q, k, v, g, reset, state, scale, inplace)
    return o.to(q.dtype), state


def _check(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, layout: str) -> None:
    check_qkv(q, k, v, layout)
    if g is not None:
        if g.shape not in (q.shape, q.shape[:-1]):
            per_head, per_channel = list(q.shape[:-1]), list(q.shape)
            raise ValueError(f"g: {describe(g)} is neither {per_head} nor {per_channel}.")
        check_tensor("g", g, g.shape, FLOATS, q.device)
