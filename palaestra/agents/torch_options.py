"""Options of every agent that learns with torch: optimiser, precision, compilation, acting."""

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, TypeVar

import torch
from pydantic import Field, field_validator

from palaestra.agents import optimizers
from palaestra.errors import UserError
from palaestra.options import Options

F = TypeVar("F", bound=Callable[..., Any])


class TorchOptions(Options):
    """What every agent that learns with torch takes; an agent's options add its own."""

    optimizer: dict[str, Any] = Field(
        {"name": "adam"}, validate_default=True, description="name and options of the optimiser"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="of the learner's forward pass and loss; weights and the optimiser's moments "
        "stay float32",
    )
    compile: bool = Field(
        False, description="compile the learner's forward pass and loss with torch.compile"
    )
    actor_device: Literal["cpu", "learner"] = Field(
        "cpu", description="where actors choose actions: on the CPU, or where the learner learns"
    )

    @field_validator("optimizer", mode="before")
    @classmethod
    def _explicit(cls, given: Any) -> dict[str, Any]:
        try:
            return optimizers.resolve(given)
        except UserError as error:
            raise ValueError(str(error).rstrip(".")) from None


def mixed_precision(options: TorchOptions, device: torch.device) -> AbstractContextManager[Any]:
    """Return a context whose operations have the precision that the options name."""
    if options.precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def compiled(function: F, options: TorchOptions) -> F:
    """Return `function`, compiled if the options say so; it is compiled at its first call.

    Raises:
      UserError: there is no compiler that torch.compile could call.
    """
    if not options.compile:
        return function
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise UserError(
            f"agent.compile: true needs a C++ compiler, but {compiler!r} is not found; install "
            "g++, name another by the environment variable CXX, or choose false."
        )
    return torch.compile(function)  # type: ignore[return-value]
