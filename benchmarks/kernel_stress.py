"""Inputs on which Mesa's solver is known to break, and what comes out of it.

Narrow sums overflow as values are unbounded, rounding makes the matrix indefinite, and one key
repeated without decay makes it as badly conditioned as the ridge allows
(https://github.com/fla-org/flash-linear-attention/issues/1187).
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from kernel_peers import OURS, fla
from torch import Tensor

from palaestra.kernels.mesa import MesaResiduals, chunk_mesa
from palaestra.kernels.verify.cases import CASES, Inputs, Size, make_inputs

Change = Callable[[Inputs], Mapping[str, Tensor]]

MESA = next(case for case in CASES if case.op == "mesa")


def _one_key(x: Inputs) -> Inputs:
    return {"k": x["k"][:, :1].expand_as(x["k"]).contiguous()}


_HARD: Change = lambda x: {  # noqa: E731
    **_one_key(x),
    "g": torch.zeros_like(x["g"]),
    "beta": torch.ones_like(x["beta"]),
    "lamb": torch.full_like(x["lamb"], 0.25),
}

STRESS: dict[str, Change] = {
    "as drawn": lambda x: {},
    "no decay, g = 0": lambda x: {"g": torch.zeros_like(x["g"])},
    "strong decay, g = -50": lambda x: {"g": torch.full_like(x["g"], -50)},
    "beta = 0": lambda x: {"beta": torch.zeros_like(x["beta"])},
    "beta = 1": lambda x: {"beta": torch.ones_like(x["beta"])},
    "one key": _one_key,
    "lamb = 0.25": lambda x: {"lamb": torch.full_like(x["lamb"], 0.25)},
    "keys 8 long": lambda x: {"k": 8 * x["k"]},
    "values times 1000": lambda x: {"v": 1000 * x["v"]},
    "one key, g = 0, beta = 1, lamb = 0.25": _HARD,
    "the same, values times 1000": lambda x: {**_HARD(x), "v": 1000 * x["v"]},
}


def stress(size: Size, dtype: torch.dtype, device: torch.device) -> list[dict[str, Any]]:
    """Return for each kind of input whether outputs and gradients are finite, and the residuals."""
    drawn, rows = make_inputs(MESA, size, dtype, device), []
    peer = fla(MESA)
    for name, change in STRESS.items():
        inputs = drawn | dict(change(drawn))
        residuals = MesaResiduals()
        ours = partial(chunk_mesa, residuals=residuals)
        rows.append(_row(OURS, name, inputs, lambda x: ours(**x)[0], residuals))  # noqa: B023
        if device.type == "cuda" and not peer.missing:
            rows.append(_row(peer.name, name, inputs, lambda x: peer.run(x, None), MesaResiduals()))
    return rows


def _row(
    contender: str,
    name: str,
    inputs: Inputs,
    run: Callable[[Inputs], Tensor],
    residuals: MesaResiduals,
) -> dict[str, Any]:
    row: dict[str, Any] = {"contender": contender, "inputs": name}
    leaves = {n: x.detach().clone().requires_grad_() for n, x in inputs.items()}
    try:
        o = run(leaves)
        gradients = torch.autograd.grad(o, list(leaves.values()), torch.randn_like(o))
    except Exception as error:
        return row | {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"}
    return row | {
        "finite_outputs": bool(o.isfinite().all()),
        "finite_gradients": all(bool(x.isfinite().all()) for x in gradients),
        "residual_forward": _largest(residuals.forward),
        "residual_backward": _largest(residuals.backward),
    }


def _largest(residual: Tensor | None) -> float | None:
    """Return the largest residual, or None where there is none or it is no number."""
    largest = torch.nan if residual is None else float(residual.detach().max())
    return largest if math.isfinite(largest) else None


def stress_table(rows: list[dict[str, Any]]) -> list[str]:
    """Return rows as lines of text."""
    lines = [
        f"{'contender':<20} {'inputs':<40} outputs     gradients   "
        "largest residual, forward and backward"
    ]
    words = {True: "finite", False: "NOT FINITE"}
    for row in rows:
        if "error" in row:
            lines.append(f"{row['contender']:<20} {row['inputs']:<40} {row['error']}")
            continue
        residuals = (row["residual_forward"], row["residual_backward"])
        told = "  ".join("none" if r is None else f"{r:.1e}" for r in residuals)
        lines.append(
            f"{row['contender']:<20} {row['inputs']:<40} {words[row['finite_outputs']]:<11} "
            f"{words[row['finite_gradients']]:<11} {told}"
        )
    return lines
