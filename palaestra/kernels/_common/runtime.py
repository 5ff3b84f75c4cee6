"""Which implementation runs, and how kernels are launched.

The package triton comes with torch where there is CUDA; without a GPU its kernels run under the
interpreter, with `TRITON_INTERPRET=1` in the environment before triton is first imported. It is no
dependency: this module looks for it without importing it.
"""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from importlib.util import find_spec
from typing import Literal, TypeVar

import torch

Impl = Literal["auto", "reference", "triton"]

IMPLS = ("auto", "reference", "triton")
"""Accepted values of `impl`."""

INTERPRET: bool
"""Whether Triton's kernels run under its interpreter, on any device; read from the environment
whenever it is asked for, as triton itself does."""

HAS_TRITON = find_spec("triton") is not None
"""Whether the package triton is installed."""

ALL_REGISTERS: dict[str, int] = {} if torch.version.hip else {"maxnreg": 255}
"""Launch option for products in full precision, which need all that a thread can have: left alone,
the assembler gives some kernels that need more than there are 32, and keeps the rest in memory."""

T = TypeVar("T")


def __getattr__(name: str) -> bool:
    if name == "INTERPRET":
        return _interpreted()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def choose(impl: str, device: torch.device) -> Literal["reference", "triton"]:
    """Return the implementation that `impl` means on `device`.

    "auto" is "triton" on CUDA where the package is installed, else "reference".

    Raises:
      ValueError: an unknown `impl`, or "triton" where it cannot run; a name never falls back.
    """
    if impl == "reference":
        return "reference"
    if impl == "auto":
        return "triton" if device.type == "cuda" and HAS_TRITON else "reference"
    if impl != "triton":
        raise ValueError(f"impl: {impl!r} is not accepted: {', '.join(map(repr, IMPLS))}.")
    if not HAS_TRITON:
        raise ValueError("impl: 'triton' needs the package triton, which is not installed.")
    if device.type != "cuda" and not _interpreted():
        raise ValueError(
            f"impl: 'triton' needs tensors on CUDA, not on {device.type} "
            "(TRITON_INTERPRET=1 runs it there, slowly)."
        )
    return "triton"


def choose_step(impl: str, *tensors: torch.Tensor | None) -> Literal["reference", "triton"]:
    """Return the implementation that `impl` means for one step, of which Triton has no gradients.

    Args:
      impl: "auto" is "reference" where a gradient is asked for, else as in `choose`.
      tensors: what the step reads.

    Raises:
      ValueError: as `choose`, or "triton" where a gradient is asked for.
    """
    given = [x for x in tensors if x is not None]
    chosen = choose(impl, given[0].device)
    if chosen == "reference" or not torch.is_grad_enabled():
        return chosen
    if not any(x.requires_grad for x in given):
        return chosen
    if impl == "triton":
        raise ValueError("impl: 'triton' gives no gradients of a step; 'reference' does.")
    return "reference"


def configs(candidates: Sequence[T]) -> list[T]:
    """Return the configurations to try: all, or the first under the interpreter."""
    return list(candidates[:1] if _interpreted() else candidates)


def acc_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type of states and sums for inputs of `dtype`: float32, or float64 for float64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def steps(n: int, device: torch.device) -> torch.Tensor:
    """Return `0 .. n - 1`; not to be written to."""
    # What is made while a CUDA graph is captured holds its numbers only after a replay.
    if device.type != "cpu" or torch.compiler.is_compiling():
        return torch.arange(n, device=device)
    return _kept_steps(n)


@lru_cache(maxsize=128)
def _kept_steps(n: int) -> torch.Tensor:
    # What inference mode makes, a later backward pass could not use.
    with torch.inference_mode(False):
        return torch.arange(n)


def no_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which operations keep the types of their inputs."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return _AS_IT_IS


_AS_IT_IS = nullcontext()


def asking_is_free(x: torch.Tensor) -> bool:
    """Return whether a value of `x` can be read without waiting: on CPU, not compiled."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def guard(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which kernels are launched on `device`."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def is_none(marks: torch.Tensor) -> bool:
    """Whether nothing is marked; false where it is not free to ask."""
    return asking_is_free(marks) and not marks.any()


def may_hold(x: torch.Tensor, value: int) -> bool:
    """Whether `x [B]` holds a value; true where it is not free to ask."""
    return not asking_is_free(x) or value in x.tolist()
