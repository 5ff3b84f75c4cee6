"""Mesa (arXiv 2506.05233): ridge regression of values on keys, solved anew at every step.

Arguments of all three forms, with widths K of keys and V of values:

    q, k   [B, T, H, K]   queries and keys
    v      [B, T, H, V]   values, of q's type
    g      [B, T, H]      log decay, at most 0: minus infinity forgets everything, above 0 it
                          counts as a number that is not finite; not read at resets
    beta   [B, T, H]      weight of a step, not negative
    lamb   [H, K]         ridge, positive: the further from 0, the fewer steps a solve needs

`step_mesa` takes them without T. Sums and solves are float32, or float64 for float64 queries.
"""

from typing import Literal

from torch import Tensor

from palaestra.kernels._common.runtime import Impl, acc_dtype, choose, choose_step, no_autocast
from palaestra.kernels._common.validate import (
    check_chunk_size,
    check_qkv,
    check_reset,
    check_tensor,
    is_empty,
)
from palaestra.kernels.mesa import reference
from palaestra.kernels.mesa.chunk import MesaChunk
from palaestra.kernels.mesa.nonfinite import Inputs, cleaned
from palaestra.kernels.mesa.solve import Solver
from palaestra.kernels.mesa.state import MesaResiduals, MesaState, empty_state
from palaestra.kernels.resets import resolve_reset

NUM_STEPS = 30
"""Steps of conjugate gradients; the paper's, where its quality no longer rises."""

TOL = 1e-6
"""Relative residual at which a solve stops: float32 gives outputs to about 4e-6 then."""

CHOLESKY_WIDTH = 32
"""Widest keys that "cholesky" accepts: it holds K x K numbers for every step."""

SolverName = Literal["cg", "cholesky"]


def chunk_mesa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    lamb: Tensor,
    *,
    reset: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    initial_state: MesaState | None = None,
    output_final_state: bool = False,
    num_steps: int = NUM_STEPS,
    tol: float = TOL,
    solver: SolverName = "cg",
    residuals: MesaResiduals | None = None,
    chunk_size: int | None = None,
    impl: Impl = "auto",
) -> tuple[Tensor, MesaState | None]:
    """Read T steps at once.

    Args:
      q: queries.
      k: keys.
      v: values.
      g: log decay.
      beta: weights.
      lamb: ridge.
      reset: bool or uint8 `[B, T]`, true where an episode begins; None is no reset.
      cu_seqlens: `[N + 1]`, where packed episodes begin, in place of `reset`; needs B = 1.
      initial_state: sums of the running episode; None is an episode's beginning.
      output_final_state: whether to return the state after the last step, else None.
      num_steps: steps of conjugate gradients; K of them are exact.
      tol: a solve stops at |residual| <= tol |right side|.
      solver: "cg", or "cholesky" for a direct solve with K <= 32.
      residuals: filled with the residuals of both passes where one is given.
      chunk_size: tokens that are worked through together, a power of two from 16 on; None is what
        is fastest, 16 in "reference" and 32 in "triton".
      impl: "auto", "reference" or "triton".

    Returns:
      `o [B, T, H, V]` in q's type, and the final state or None.

    Raises:
      ValueError: an argument that does not fit.
    """
    _check(q, k, v, g, beta, lamb, initial_state, "[B, T, H, K]")
    if chunk_size is not None:
        check_chunk_size(chunk_size)
    how = _solver(solver, num_steps, tol, q.shape[-1])
    B, T = q.shape[:2]
    first = resolve_reset(reset, cu_seqlens, B, T, q.device)
    state = _state(initial_state, q, v)
    if choose(impl, q.device) == "triton":
        _check_solver(solver)
        from palaestra.kernels.mesa.triton import MesaTriton

        run, fastest = MesaTriton.apply, 32
    else:
        run, fastest = MesaChunk.apply, 16
    if is_empty(q):
        return v.clone(), state if output_final_state else None
    with no_autocast(q.device):
        x, state, spoilt = cleaned(*_compute(q, k, v, g, beta), first, state)
        lamb, sums = lamb.to(x[0].dtype), (state.hkk, state.hkv)
        o, *sums = run(*x, lamb, first, *sums, how, chunk_size or fastest, residuals)
        o, state = spoilt(o, MesaState(*sums))
    return o.to(q.dtype), state if output_final_state else None


def recurrent_mesa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    lamb: Tensor,
    *,
    reset: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    initial_state: MesaState | None = None,
    output_final_state: bool = False,
    num_steps: int = NUM_STEPS,
    tol: float = TOL,
    solver: SolverName = "cg",
) -> tuple[Tensor, MesaState | None]:
    """Read T steps one after the other; arguments and result as `chunk_mesa`.

    Raises:
      ValueError: an argument that does not fit.
    """
    _check(q, k, v, g, beta, lamb, initial_state, "[B, T, H, K]")
    how = _solver(solver, num_steps, tol, q.shape[-1])
    B, T = q.shape[:2]
    first = resolve_reset(reset, cu_seqlens, B, T, q.device)
    state = _state(initial_state, q, v)
    if is_empty(q):
        return v.clone(), state if output_final_state else None
    with no_autocast(q.device):
        x = _compute(q, k, v, g, beta)
        o, state = reference.recurrent(*x, lamb.to(x[0].dtype), first, state, how)
    return o.to(q.dtype), state if output_final_state else None


def step_mesa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    lamb: Tensor,
    state: MesaState,
    *,
    reset: Tensor | None = None,
    num_steps: int = NUM_STEPS,
    tol: float = TOL,
    solver: SolverName = "cg",
    impl: Impl = "auto",
) -> tuple[Tensor, MesaState]:
    """Read one step: `reset [B]` -> `o [B, H, V]` and a new state.

    With the same `num_steps`, `tol` and `solver` T steps equal `chunk_mesa`, converged or not.
    `impl` "triton" gives no gradients; "auto" is "reference" where a gradient is asked for, or
    another solver than "cg".

    Raises:
      ValueError: an argument that does not fit.
    """
    _check(q, k, v, g, beta, lamb, state, "[B, H, K]")
    how = _solver(solver, num_steps, tol, q.shape[-1])
    first = check_reset(reset, q.shape[0], q.device)
    if is_empty(q):
        return v.clone(), state
    if impl == "auto" and solver == "cholesky":
        impl = "reference"
    if choose_step(impl, q, k, v, g, beta, lamb, state.hkk, state.hkv) == "triton":
        _check_solver(solver)
        from palaestra.kernels.mesa.triton_step import step
    else:
        step = reference.step
    with no_autocast(q.device):
        x = _compute(q, k, v, g, beta)
        o, state = step(*x, lamb.to(x[0].dtype), first, state, how)
    return o.to(q.dtype), state


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    lamb: Tensor,
    state: MesaState | None,
    layout: str,
) -> None:
    check_qkv(q, k, v, layout)
    (*lead, H, K), V = q.shape, v.shape[-1]
    types = (q.dtype, acc_dtype(q.dtype))
    for name, x in (("g", g), ("beta", beta)):
        check_tensor(name, x, (*lead, H), types, q.device)
    check_tensor("lamb", lamb, (H, K), types, q.device)
    if state is not None:
        B, acc = q.shape[0], acc_dtype(q.dtype)
        check_tensor("state.hkk", state.hkk, (B, H, K, K), acc, q.device)
        check_tensor("state.hkv", state.hkv, (B, H, K, V), acc, q.device)


def _solver(name: str, num_steps: int, tol: float, K: int) -> Solver:
    if name not in ("cg", "cholesky"):
        raise ValueError(f"solver: {name!r} is not accepted: 'cg' or 'cholesky'.")
    if name == "cholesky" and K > CHOLESKY_WIDTH:
        raise ValueError(f"solver: 'cholesky' takes K up to {CHOLESKY_WIDTH}, not {K}; 'cg' any.")
    if num_steps < 0:
        raise ValueError(f"num_steps: {num_steps} is negative.")
    if not 0 <= tol < 1:
        raise ValueError(f"tol: {tol} is not in [0, 1).")
    return Solver(name, num_steps, tol)


def _check_solver(name: str) -> None:
    if name == "cholesky":
        raise ValueError("solver: 'cholesky' needs impl 'reference'; 'triton' has 'cg'.")


def _state(state: MesaState | None, q: Tensor, v: Tensor) -> MesaState:
    if state is not None:
        return state
    return empty_state(q.shape[0], q.shape[-2], q.shape[-1], v.shape[-1], like=q)


def _compute(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Inputs:
    dtype = acc_dtype(q.dtype)
    return q.to(dtype), k.to(dtype), v.to(dtype), g.to(dtype), beta.to(dtype)
