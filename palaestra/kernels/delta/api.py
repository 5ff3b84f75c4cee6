"""The delta rule with episode resets: DeltaNet (arXiv 2406.06484), gated (arXiv 2412.06464).

    S_bar = where(r_t, 0, exp(g_t) S_{t-1})         S_t = S_bar + beta_t k_t (v_t - S_bar^T k_t)^T
    o_t = scale S_t^T q_t

README.md holds the chunk form and the gradients.
"""

from torch import Tensor

from palaestra.kernels._common.matrix import check_state, window
from palaestra.kernels._common.runtime import Impl, acc_dtype, choose, choose_step, no_autocast
from palaestra.kernels._common.validate import (
    check_chunk_size,
    check_qkv,
    check_reset,
    check_tensor,
    is_empty,
    scale_of,
)
from palaestra.kernels.delta import reference
from palaestra.kernels.delta.chunk import DeltaChunk


def chunk_delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None = None,
    *,
    scale: float | None = None,
    reset: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    chunk_size: int | None = None,
    impl: Impl = "auto",
) -> tuple[Tensor, Tensor | None]:
    """Read T steps at once.

    A step whose numbers are not finite makes NaN of what sees it, and of nothing after a reset.

    Args:
      q: queries `[B, T, H, K]`.
      k: keys, of q's shape; of length 1 at most, else the state may grow without bound.
      v: values `[B, T, H, V]`.
      beta: how much of the error is corrected, `[B, T, H]`, from 0 to 1, or to 2 for keys of
        length 1.
      g: log decay `[B, T, H]`, at most 0; None is no decay. Not read at resets. Minus infinity
        forgets everything; above 0 it counts as a number that is not finite.
      scale: factor of the outputs; None is K ** -0.5.
      reset: bool or uint8 `[B, T]`, true where an episode begins; None is no reset.
      cu_seqlens: int32 or int64 `[N + 1]`, the same for N episodes packed into one row.
      initial_state: the running episode's `[B, H, K, V]`, float32 (float64 for float64 inputs);
        None is zeros.
      output_final_state: whether to return the state after the last step, else None.
      chunk_size: steps in a chunk, a power of two from 16 on; None is what is fastest, 16 in
        "reference" and 32 in "triton".
      impl: "auto", "reference" or "triton".

    Returns:
      `o [B, T, H, V]` of q's type, and the final state or None.

    Raises:
      ValueError: an unknown `impl`, or a shape, type or device that does not fit.
    """
    if chunk_size is not None:
        check_chunk_size(chunk_size)
    _check(q, k, v, beta, g, "[B, T, H, K]")
    reset, state = window(q, v, reset, cu_seqlens, initial_state)
    scale, chosen = scale_of(scale, q), choose(impl, q.device)
    if is_empty(q):
        return v.clone(), state if output_final_state else None
    with no_autocast(q.device):
        if chosen == "triton":
            from palaestra.kernels.delta.triton import DeltaTriton

            o, state = DeltaTriton.apply(q, k, v, beta, g, state, reset, scale, chunk_size or 32)
        else:
            o, state = DeltaChunk.apply(q, k, v, beta, g, state, reset, scale, chunk_size or 16)
    return o, state if output_final_state else None


def recurrent_delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None = None,
    *,
    scale: float | None = None,
    reset: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Read T steps one after another; slow, and what `chunk_delta` has to equal.

    Arguments, results and errors are those of `chunk_delta`.
    """
    _check(q, k, v, beta, g, "[B, T, H, K]")
    reset, state = window(q, v, reset, cu_seqlens, initial_state)
    scale = scale_of(scale, q)
    if is_empty(q):
        return v.clone(), state if output_final_state else None
    with no_autocast(q.device):
        o, state = reference.recurrent(q, k, v, beta, g, state, reset, scale)
    return o, state if output_final_state else None


def step_delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
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
      beta: `[B, H]`.
      g: `[B, H]` or None.
      state: `[B, H, K, V]`.
      scale: factor of the output; None is K ** -0.5.
      reset: bool or uint8 `[B]`, true where this step is the first of an episode.
      inplace: write into `state` and return it, without gradients, instead of leaving it as it was.
      impl: "auto", "reference" or "triton", which gives no gradients; "auto" is "reference" where
        a gradient is asked for.

    Returns:
      `o [B, H, V]` of q's type and the state after the step.

    Raises:
      ValueError: an `impl` that is unknown or cannot run, or a shape, type or device that does
        not fit.
    """
    _check(q, k, v, beta, g, "[B, H, K]")
    check_state("state", state, q, v)
    reset = check_reset(reset, len(q), q.device)
    scale = scale_of(scale, q)
    if is_empty(q):
        return v.clone(), state
    if choose_step(impl, q, k, v, beta, g, state) == "triton":
        from palaestra.kernels.delta.triton_step import step

        return step(q, k, v, beta, g, state, reset, scale, inplace)
    with no_autocast(q.device):
        return reference.step(q, k, v, beta, g, state, reset, scale, inplace)


def _check(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor | None, layout: str) -> None:
    check_qkv(q, k, v, layout)
    types = (q.dtype, acc_dtype(q.dtype))
    check_tensor("beta", beta, q.shape[:-1], types, q.device)
    if g is not None:
        check_tensor("g", g, q.shape[:-1], types, q.device)
