"""Memory that was allocated and never written shows itself in every test of a kernel."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from palaestra import kernels
from palaestra.kernels._common.runtime import HAS_TRITON

# Kernels are for the interpreter or for a GPU once and for all, as they are imported: before a test
# changes the environment.
if HAS_TRITON:
    for file in Path(kernels.__file__).parent.glob("*/triton*.py"):
        import_module(f"palaestra.kernels.{file.parent.name}.{file.stem}")

# The compiler notes torch's functions at its first use, which must not be in a test that poisons.
torch.compile(torch.neg, backend="eager")(torch.zeros(1))


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Fill what `empty` returns with NaN: an entry that is never written shows."""
    if "compile" in request.node.name:
        return  # the compiler has to see torch's own functions
    for owner, name in (
        (torch, "empty"),
        (torch, "empty_like"),
        (torch.Tensor, "new_empty"),
    ):
        monkeypatch.setattr(owner, name, _poisoned(getattr(owner, name)))


def _poisoned(allocate: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def poisoned(*args: Any, **kwargs: Any) -> torch.Tensor:
        new = allocate(*args, **kwargs)
        return new.fill_(torch.nan) if new.is_floating_point() else new

    return poisoned
