"""What runs on this machine, and whether it is right: a short test of every implementation."""

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import torch

from palaestra.kernels._common import runtime
from palaestra.kernels.verify.accuracy import BOUNDS, Error, chunk_errors, step_errors
from palaestra.kernels.verify.cases import CASES, OPERATORS, Case, forms


@dataclass(frozen=True)
class Row:
    """One implementation of an operator on one device in one type."""

    op: str
    impl: str
    """"reference" or "triton" for the chunk form, "step reference" or "step triton"."""
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
    for form, errors in (("", chunk_errors), ("step", step_errors)):
        for impl in cases[0].impls:
            name = f"{form} {impl}".strip()
            row = Row(op, name, device, "-", impl == chosen, "ok")
            absent = _absent(op, impl, where)
            if absent:
                yield replace(row, status="failed" if row.auto else "absent", note=absent)
                continue
            for dtype in BOUNDS if form else _dtypes(op, impl, device):
                measure = partial(errors, found, impl, dtype, where)
                yield _tested(replace(row, dtype=_name(dtype)), cases, measure)


def _dtypes(op: str, impl: str, device: str) -> tuple[torch.dtype, ...]:
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


def _tested(row: Row, cases: Sequence[Case], measure: Callable[[Case], Iterator[Error]]) -> Row:
    """Return `row` with the worst error of all cases, or with what one raised."""
    worst = Error(0.0, 1.0, "")
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
