"""What runs on this machine, and whether it is right: a short test of every implementation.

Each form of an operator reads the same window, with resets and a running episode, as the loop over
tokens does in float64. Compared are outputs, the final state and, but for the step form, the
gradients of all inputs. The error of a tensor is max |x - x_true| / max |x_true|. Bounds:

    float64, float32    fixed, see `BOUNDS`
    bfloat16            2 e + one unit of rounding; e is what rounding the inputs alone does
"""

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from palaestra.kernels._common import runtime
from palaestra.kernels.cases import (
    CASES,
    OPERATORS,
    Case,
    Forms,
    Inputs,
    Size,
    cast_inputs,
    forms,
    make_inputs,
)

SIZES = {16: Size(B=3, T=37, H=2, D=16)}
"""Windows by the size of chunks; the last chunk is not full."""

GPU_SIZES = {**SIZES, 64: Size(B=3, T=150, H=2, D=64)}
"""Other widths are other kernels there."""

BOUNDS = {torch.float64: (1e-12, 5e-12), torch.float32: (1e-5, 5e-5)}
"""Largest error of outputs and states, and of gradients."""


@dataclass(frozen=True)
class Row:
    """One implementation of an operator on one device in one type."""

    op: str
    impl: str
    """"reference" or "triton" of the chunk form, or "step"."""
    device: str
    dtype: str
    auto: bool
    """Whether `impl="auto"` chooses it."""
    status: str
    """"ok", "failed", or "absent": it cannot run on this machine."""
    error: float | None = None
    """The largest error, measured by its bound."""
    bound: float | None = None
    where: str = ""
    """The variant and the tensor with that error."""
    note: str = ""
    """What was raised, or why it is absent."""


class _Error(NamedTuple):
    """An error and its bound."""

    error: float
    bound: float
    where: str

    @property
    def ratio(self) -> float:
        return self.error / self.bound if self.error == self.error else float("inf")


def machine() -> dict[str, Any]:
    """Return what the results depend on: versions, the GPU, threads."""
    gpu = torch.cuda.is_available()
    return {
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _version("triton"),
        "cuda": torch.version.cuda if gpu else None,
        "gpu": torch.cuda.get_device_name() if gpu else None,
        "capability": list(torch.cuda.get_device_capability()) if gpu else None,
        "threads": torch.get_num_threads(),
        "triton_interpreter": runtime.INTERPRET,
    }


def check(ops: Sequence[str] = OPERATORS, device: str | None = None) -> list[Row]:
    """Test operators; what raises becomes a row, too.

    Args:
      ops: names of operators.
      device: "cpu" or "cuda"; None is every device here.
    """
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    devices = devices if device is None else [device]
    return [row for op in ops for device in devices for row in _check_operator(op, device)]


def passed(rows: Sequence[Row]) -> bool:
    """Return whether nothing failed."""
    return all(row.status != "failed" for row in rows)


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return rows as JSON takes them; an error that is not finite is null, its status says it."""
    finite = [
        row if row.error is None or abs(row.error) < float("inf") else replace(row, error=None)
        for row in rows
    ]
    return [asdict(row) for row in finite]


def table(rows: Sequence[Row]) -> list[str]:
    """Return rows as lines of text."""
    head = ("operator", "implementation", "device", "dtype", "status", "error", "bound", "worst")
    body = [
        (
            row.op,
            row.impl + (" (auto)" if row.auto else ""),
            row.device,
            row.dtype,
            row.status,
            "" if row.error is None else f"{row.error:.1e}",
            "" if row.bound is None else f"{row.bound:.1e}",
            row.note or row.where,
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in (head, *body)) for i in range(len(head) - 1)]
    return [
        "  ".join([*(f"{x:<{n}}" for x, n in zip(line[:-1], widths, strict=True)), line[-1]])
        for line in (head, *body)
    ]


def _check_operator(op: str, device: str) -> Iterator[Row]:
    cases = [case for case in CASES if case.op == op]
    try:
        found = forms(op)
    except Exception as error:
        yield Row(op, "-", device, "-", False, "failed", note=_told(error))
        return
    where = torch.device(device)
    chosen = runtime.choose("auto", where) if "triton" in cases[0].impls else "reference"
    for impl in cases[0].impls:
        row = Row(op, impl, device, "-", impl == chosen, "ok")
        absent = _absent(op, impl, where)
        if absent:
            yield replace(row, status="failed" if row.auto else "absent", note=absent)
            continue
        for dtype in _dtypes(op, impl, device):
            measure = partial(_chunk_errors, found, impl, dtype, where)
            yield _tested(replace(row, dtype=_name(dtype)), cases, measure)
    for dtype in BOUNDS:
        row = Row(op, "step", device, _name(dtype), False, "ok")
        yield _tested(row, cases, partial(_step_errors, found, dtype, where))


def _dtypes(op: str, impl: str, device: str) -> tuple[torch.dtype, ...]:
    if op == "gru":
        return torch.float64, torch.float32
    if impl == "triton":  # its interpreter multiplies bfloat16 wrongly; a GPU is not for float64
        other = torch.bfloat16 if device == "cuda" else torch.float64
        return other, torch.float32
    return torch.float64, torch.float32, torch.bfloat16


def _absent(op: str, impl: str, device: torch.device) -> str:
    """Return why an implementation cannot run, or nothing."""
    if impl == "reference":
        return ""
    if find_spec(f"palaestra.kernels.{op}.triton") is None:
        return "this operator has no Triton kernels"
    try:
        runtime.choose(impl, device)
    except ValueError as error:
        return str(error).removeprefix("impl: ")
    return ""


def _tested(row: Row, cases: Sequence[Case], measure: Callable[[Case], Iterator[_Error]]) -> Row:
    """Return `row` with the worst error of all cases, or with what one raised."""
    worst = _Error(0.0, 1.0, "")
    for case in cases:
        try:
            found = max(measure(case), key=lambda e: e.ratio)
        except Exception as error:
            note = f"{case.variant}: {_told(error)}" if case.variant else _told(error)
            return replace(row, status="failed", note=note)
        if found.ratio >= worst.ratio:
            worst = found._replace(where=f"{case.variant} {found.where}".strip())
    status = "ok" if worst.ratio <= 1 else "failed"
    return replace(row, status=status, error=worst.error, bound=worst.bound, where=worst.where)


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


def _chunk_errors(
    found: Forms, impl: str, dtype: torch.dtype, device: torch.device, case: Case
) -> Iterator[_Error]:
    exact = case.exact if dtype == torch.float64 else {}
    for true in _truths(found, case, device):
        blocks = {"chunk_size": true.chunk_size} if case.blocks else {}
        run = partial(found.chunk, impl=impl, **blocks, **{**case.options, **exact})
        like = _some_state(found, case, true.size, dtype, device)
        inputs, state = cast_inputs(true.inputs, dtype), _as(true.state, like)
        results = _results(run, inputs, true.reset, state)
        bounds = _bounds(found, case, dtype, true, inputs, state)
        for name, x in results.items():
            yield _Error(_error(x, true.results[name]), bounds[name], name)


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


def _step_errors(
    found: Forms, dtype: torch.dtype, device: torch.device, case: Case
) -> Iterator[_Error]:
    options = {**case.options, **(case.exact if dtype == torch.float64 else {})}
    for true in _truths(found, case, device):
        inputs = cast_inputs(true.inputs, dtype)
        state = _as(true.state, _some_state(found, case, true.size, dtype, device))
        rows = []
        with torch.no_grad():
            for t in range(true.size.T):
                now = {n: x if n in case.timeless else x[:, t] for n, x in inputs.items()}
                o_t, state = found.step(**now, state=state, reset=true.reset[:, t], **options)
                rows.append(o_t)
        for name, x in {"o": torch.stack(rows, 1), **_tensors(state)}.items():
            yield _Error(_error(x, true.results[name]), BOUNDS[dtype][0], name)


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


def _told(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}".rstrip(": ")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
