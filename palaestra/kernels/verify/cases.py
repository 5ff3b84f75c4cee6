"""Every operator behind one interface, with random inputs: for checks and benchmarks.

A form of an operator is called with its inputs by name, and returns outputs and the final state:

    chunk(**inputs, reset=, initial_state=, output_final_state=, impl=, **options)
    recurrent(**inputs, reset=, initial_state=, output_final_state=, **options)
    step(**inputs of one step, state=, reset=, impl=, **options)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize, softplus

Inputs = dict[str, Tensor]
Normal = Callable[..., Tensor]
"""Draws a tensor of the given shape from the normal distribution."""


class Size(NamedTuple):
    """Sizes of a window."""

    B: int
    """Rows."""
    T: int
    """Steps."""
    H: int
    """Heads."""
    D: int
    """Width of a head, for keys and values alike."""


class Forms(NamedTuple):
    """The three forms of an operator."""

    chunk: Callable[..., tuple[Tensor, Any]]
    recurrent: Callable[..., tuple[Tensor, Any]]
    step: Callable[..., tuple[Tensor, Any]]


@dataclass(frozen=True)
class Case:
    """An operator in one variant."""

    op: str
    """Folder in `palaestra.kernels`."""
    variant: str
    draw: Callable[[Normal, Size], Inputs]
    """Returns the inputs for a size."""
    timeless: tuple[str, ...] = ()
    """Inputs that have no time axis."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Given to all forms."""
    exact: Mapping[str, Any] = field(default_factory=dict)
    """Given to all forms where the result shall be as exact as float64 is."""
    memory: Mapping[str, Any] = field(default_factory=dict)
    """Given to the form that makes a state from nothing: how much of the past it holds."""
    blocks: bool = True
    """Whether the chunk form takes `chunk_size`."""
    impls: tuple[str, ...] = ("reference", "triton")
    """Implementations of the chunk form and of the step form."""

    @property
    def name(self) -> str:
        """The operator and, where there are more, the variant."""
        return f"{self.op} {self.variant}".strip()


def forms(op: str) -> Forms:
    """Import an operator and return its forms."""
    module = import_module(f"palaestra.kernels.{op}")
    return Forms(*(getattr(module, f"{form}_{op}") for form in Forms._fields))


def make_inputs(
    case: Case, size: Size, dtype: torch.dtype, device: torch.device, seed: int = 0
) -> Inputs:
    """Return random inputs: drawn in `dtype`, but in float32 at least; gates stay so."""
    generator = torch.Generator(device).manual_seed(seed)
    wide = torch.promote_types(dtype, torch.float32)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=wide, device=device, generator=generator)

    return cast_inputs(case.draw(normal, size), dtype)


def cast_inputs(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    """Return inputs in `dtype`; gates in float32 at least, as layers give them."""
    wide = torch.promote_types(dtype, torch.float32)
    return {name: x.to(wide if name in _GATES else dtype) for name, x in inputs.items()}


_GATES = ("g", "beta", "lamb")


def _qkv(normal: Normal, size: Size) -> Inputs:
    return {name: normal(*size) for name in ("q", "k", "v")}


def _unit_qkv(normal: Normal, size: Size) -> Inputs:
    x = _qkv(normal, size)
    return {"q": normalize(x["q"], dim=-1), "k": normalize(x["k"], dim=-1), "v": x["v"]}


def _gla_head(normal: Normal, size: Size) -> Inputs:
    return _qkv(normal, size) | {"g": logsigmoid(normal(*size[:3]) + 3)}


def _gla_channel(normal: Normal, size: Size) -> Inputs:
    return _qkv(normal, size) | {"g": logsigmoid(normal(*size) + 3)}


def _delta(normal: Normal, size: Size) -> Inputs:
    return _unit_qkv(normal, size) | {"beta": normal(*size[:3]).sigmoid()}


def _gated_delta(normal: Normal, size: Size) -> Inputs:
    return _delta(normal, size) | {"g": logsigmoid(normal(*size[:3]) + 3)}


def _mesa(normal: Normal, size: Size) -> Inputs:
    return _gated_delta(normal, size) | {"lamb": 0.25 + softplus(normal(size.H, size.D))}


def _rat(normal: Normal, size: Size) -> Inputs:
    groups = 1 if size.H % 2 else 2
    q, k = (normal(size.B, size.T, groups, size.D) for _ in range(2))
    return {"q": q, "k": k, "v": normal(*size), "g": (normal(*size) + 2).sigmoid()}


def _cell(gates: int) -> Callable[[Normal, Size], Inputs]:
    def draw(normal: Normal, size: Size) -> Inputs:
        B, T, H, D = size
        n, rows = H * D, gates * H * D
        shapes = {"w_ih": (rows, n), "w_hh": (rows, n), "b_ih": (rows,), "b_hh": (rows,)}
        return {"x": normal(B, T, n)} | {name: n**-0.5 * normal(*s) for name, s in shapes.items()}

    return draw


CELLS = ("gru", "lstm")
"""Operators with one input and weights, in place of queries, keys and values."""

_CELL: dict[str, Any] = {
    "timeless": ("w_ih", "w_hh", "b_ih", "b_hh"),
    "blocks": False,
    "impls": ("reference",),
}


CASES = (
    Case("attention", "", _qkv, memory={"window": 24}),
    Case("gla", "plain", _qkv, options={"g": None}),
    Case("gla", "per head", _gla_head),
    Case("gla", "per channel", _gla_channel),
    Case("delta", "plain", _delta, options={"g": None}),
    Case("delta", "gated", _gated_delta),
    Case("mesa", "", _mesa, ("lamb",), exact={"num_steps": 200, "tol": 1e-14}),
    Case("rat", "", _rat, options={"chunk_length": 16}, memory={"capacity": 4}, blocks=False),
    Case("gru", "", _cell(3), **_CELL),
    Case("lstm", "", _cell(4), **_CELL),
)

OPERATORS = tuple(dict.fromkeys(case.op for case in CASES))
