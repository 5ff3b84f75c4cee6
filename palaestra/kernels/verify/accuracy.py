"""How far an implementation is from the loop over tokens in float64.

Each form of an operator reads the same window, with resets and a running episode. Compared are
outputs, the final state and, but for the step form, the gradients of all inputs. The error of a
tensor is max |x - x_true| / max |x_true|. Bounds:

    float64, float32    fixed, see `BOUNDS`
    bfloat16            2 e + one unit of rounding; e is what rounding the inputs alone does
"""

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from palaestra.kernels.verify.cases import Case, Forms, Inputs, Size, cast_inputs, make_inputs

SIZES = {16: Size(B=3, T=37, H=2, D=16)}
"""Windows by the size of chunks; the last chunk is not full."""

GPU_SIZES = {**SIZES, 64: Size(B=3, T=150, H=2, D=64)}
"""Other widths are other kernels there."""

BOUNDS = {torch.float64: (1e-12, 5e-12), torch.float32: (1e-5, 5e-5)}
"""Largest error of outputs and states, and of gradients."""


class Error(NamedTuple):
    """An error and its bound."""

    error: float
    bound: float
    where: str

    @property
    def ratio(self) -> float:
        """The error, measured by its bound; infinite where it is NaN."""
        return self.error / self.bound if self.error == self.error else float("inf")


class _Window(NamedTuple):
    """A window in float64, and what the loop over tokens gives for it."""

    chunk_size: int
    size: Size
    inputs: Inputs
    reset: Tensor
    state: Any
    results: dict[str, Tensor]


def _truths(found: Forms, case: Case, device: torch.device) -> Iterator[_Window]:
    run = partial(found.recurrent, **case.options, **case.exact)
    for chunk_size, size in (GPU_SIZES if device.type == "cuda" else SIZES).items():
        inputs = make_inputs(case, size, torch.float64, device)
        state = _some_state(found, case, size, torch.float64, device)
        reset = _resets(size, chunk_size, device)
        yield _Window(chunk_size, size, inputs, reset, state, _results(run, inputs, reset, state))


def _resets(size: Size, chunk_size: int, device: torch.device) -> Tensor:
    """Return a row without resets, one with adjacent ones, and one with resets where chunks end."""
    reset = torch.zeros(size.B, size.T, dtype=torch.bool, device=device)
    reset[1, [5, 20, 21]] = True
    reset[2, [0, chunk_size, 2 * chunk_size, size.T - 1]] = True
    return reset


def _some_state(
    found: Forms, case: Case, size: Size, dtype: torch.dtype, device: torch.device
) -> Any:
    """Return the state in an episode, computed in `dtype`."""
    inputs = make_inputs(case, size._replace(T=20), torch.float64, device, seed=1)
    reset = torch.zeros(size.B, 20, dtype=torch.bool, device=device)
    reset[1, 7] = True
    options = dict(case.options) | dict(case.exact) | dict(case.memory)
    with torch.no_grad():
        return found.recurrent(
            **cast_inputs(inputs, dtype), reset=reset, output_final_state=True, **options
        )[1]


def chunk_errors(
    found: Forms, impl: str, dtype: torch.dtype, device: torch.device, case: Case
) -> Iterator[Error]:
    """Return the errors of all tensors of the chunk form."""
    exact = case.exact if dtype == torch.float64 else {}
    for true in _truths(found, case, device):
        blocks = {"chunk_size": true.chunk_size} if case.blocks else {}
        run = partial(found.chunk, impl=impl, **blocks, **{**case.options, **exact})
        like = _some_state(found, case, true.size, dtype, device)
        inputs, state = cast_inputs(true.inputs, dtype), _as(true.state, like)
        results = _results(run, inputs, true.reset, state)
        bounds = _bounds(found, case, dtype, true, inputs, state)
        for name, x in results.items():
            yield Error(_error(x, true.results[name]), bounds[name], name)


def _bounds(
    found: Forms, case: Case, dtype: torch.dtype, true: _Window, inputs: Inputs, state: Any
) -> dict[str, float]:
    if dtype in BOUNDS:
        return {name: BOUNDS[dtype][name.startswith("d")] for name in true.results}
    rounded = {name: x.double() for name, x in inputs.items()}
    run = partial(found.recurrent, **case.options, **case.exact)
    results = _results(run, rounded, true.reset, _as(state, true.state))
    unit = torch.finfo(dtype).eps
    return {name: 2 * _error(x, true.results[name]) + unit for name, x in results.items()}


def step_errors(
    found: Forms, impl: str, dtype: torch.dtype, device: torch.device, case: Case
) -> Iterator[Error]:
    """Return the errors of outputs and states of the step form."""
    exact = case.exact if dtype == torch.float64 else {}
    step = partial(found.step, impl=impl, **case.options, **exact)
    for true in _truths(found, case, device):
        inputs = cast_inputs(true.inputs, dtype)
        state = _as(true.state, _some_state(found, case, true.size, dtype, device))
        rows = []
        with torch.no_grad():
            for t in range(true.size.T):
                now = {n: x if n in case.timeless else x[:, t] for n, x in inputs.items()}
                o_t, state = step(**now, state=state, reset=true.reset[:, t])
                rows.append(o_t)
        for name, x in {"o": torch.stack(rows, 1), **_tensors(state)}.items():
            yield Error(_error(x, true.results[name]), BOUNDS[dtype][0], name)


def _results(
    run: Callable[..., tuple[Tensor, Any]], inputs: Inputs, reset: Tensor, state: Any
) -> dict[str, Tensor]:
    """Return output, final state and the gradients of inputs and state for fixed ones of these."""
    inputs = {name: x.detach().clone().requires_grad_() for name, x in inputs.items()}
    start = {
        name: x.detach().clone().requires_grad_(x.is_floating_point())
        for name, x in _tensors(state).items()
    }
    o, last = run(
        **inputs, reset=reset, initial_state=_rebuilt(state, start), output_final_state=True
    )
    outputs = {"o": o, **_tensors(last)}
    ends = [x for x in outputs.values() if x.requires_grad]
    leaves = {f"d{n}": x for n, x in {**inputs, **start}.items() if x.requires_grad}
    generator = torch.Generator(reset.device).manual_seed(2)
    given = [
        torch.randn(x.shape, dtype=torch.float64, device=x.device, generator=generator).to(x.dtype)
        for x in ends
    ]
    found = torch.autograd.grad(ends, list(leaves.values()), given, allow_unused=True)
    gradients = {
        name: torch.zeros_like(leaf) if x is None else x
        for (name, leaf), x in zip(leaves.items(), found, strict=True)
    }
    return {name: x.detach() for name, x in (outputs | gradients).items()}


def _tensors(state: Any) -> dict[str, Tensor]:
    if is_dataclass(state):
        return {f"state.{f.name}": getattr(state, f.name) for f in fields(state)}
    return {"state": state}


def _rebuilt(state: Any, tensors: dict[str, Tensor]) -> Any:
    if "state" in tensors:
        return tensors["state"]
    make: Any = type(state)
    return make(**{name.removeprefix("state."): x for name, x in tensors.items()})


def _as(state: Any, like: Any) -> Any:
    """Return `state` in the types of `like`."""
    types = {name: x.dtype for name, x in _tensors(like).items()}
    return _rebuilt(state, {name: x.to(types[name]) for name, x in _tensors(state).items()})


def _error(x: Tensor, true: Tensor) -> float:
    x, true = x.double(), true.double()
    size = float(true.abs().max())
    return float((x - true).abs().max()) / (size or 1.0)
