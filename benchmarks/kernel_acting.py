"""One step for many rows at once: who is measured when an agent acts."""

from collections.abc import Callable
from dataclasses import fields
from importlib import import_module
from inspect import signature
from typing import Any

import torch
from kernel_peers import OURS, Contender
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from palaestra.kernels.verify.cases import CASES, CELLS, Case, Inputs, Size, forms, make_inputs

CONTEXT = 128
"""Steps of the past that attention and RAT read, where the size does not say more."""


def acting(case: Case, size: Size, dtype: torch.dtype, device: torch.device) -> list[Contender]:
    """Return who is measured on one step; ours comes first. Gradients are not asked for."""
    state = some_state(case, size, dtype, device)
    found = [Contender(OURS, _ours(case, state))]
    if device.type == "cuda" and case.name in FLA:
        found.append(Contender(f"fla {FLA[case.name][1]}", _fla(case, state), needs="fla"))
    if case.op in ("attention", "rat"):
        found.append(cached(state if case.op == "attention" else _full_cache(size, dtype, device)))
    if case.op in CELLS:
        return [*found, _cell(size, dtype, device)]
    return found if size.T > 1 else [*found, _cell(size, dtype, device)]


def one_step(case: Case, size: Size, dtype: torch.dtype, device: torch.device) -> Inputs:
    """Return the inputs of a step."""
    x = make_inputs(case, size._replace(T=1), dtype, device)
    return {name: one if name in case.timeless else one[:, 0] for name, one in x.items()}


def some_state(case: Case, size: Size, dtype: torch.dtype, device: torch.device) -> Any:
    """Return a state in the midst of an episode: at position T, but `CONTEXT` at least."""
    past = max(size.T, CONTEXT)
    if case.op in ("attention", "rat"):
        slots = past // case.options.get("chunk_length", 1)
        like = torch.empty(0, dtype=dtype, device=device)
        make = import_module(f"palaestra.kernels.{case.op}").empty_state
        state = make(size.B, size.H, slots, size.D, like=like)
        for part in fields(state):
            x = getattr(state, part.name)
            x.fill_(past) if part.name == "pos" else x.normal_()
        return state
    inputs = make_inputs(case, size._replace(T=64), dtype, device)
    with torch.no_grad():
        return forms(case.op).chunk(**inputs, output_final_state=True, **case.options)[1]


def _ours(case: Case, state: Any) -> Callable[[Inputs, Tensor | None], Tensor]:
    step, options = forms(case.op).step, dict(case.options)
    if "inplace" in signature(step).parameters:
        options["inplace"] = True

    def run(inputs: Inputs, reset: Tensor | None) -> Tensor:
        return step(**inputs, state=state, reset=reset, **options)[0]

    return run


FLA = {
    "gla plain": ("simple_gla", "fused_recurrent_simple_gla"),
    "gla per head": ("simple_gla", "fused_recurrent_simple_gla"),
    "gla per channel": ("gla", "fused_recurrent_gla"),
    "delta plain": ("delta_rule", "fused_recurrent_delta_rule"),
    "delta gated": ("gated_delta_rule", "fused_recurrent_gated_delta_rule"),
    "mesa": ("mesa_net", "mesa_net_decoding_one_step"),
}
"""Module and function of fla-core; a reset there is a state cleared beforehand."""


def _fla(case: Case, state: Any) -> Callable[[Inputs, Tensor | None], Tensor]:
    module, name = FLA[case.name]

    def run(inputs: Inputs, reset: Tensor | None) -> Tensor:
        step = getattr(import_module(f"fla.ops.{module}"), name)
        if case.op == "mesa":
            hkk, hkv = (_cleared(x, reset) for x in (state.hkk, state.hkv))
            return step(**inputs, prev_h_kk=hkk, prev_h_kv=hkv)[0]
        rows = {n: x.unsqueeze(1) for n, x in inputs.items()}
        if name == "fused_recurrent_gla":
            rows["gk"] = rows.pop("g")
        o, _ = step(**rows, initial_state=_cleared(state, reset), output_final_state=True)
        return o.squeeze(1)

    return run


def _cleared(state: Tensor, reset: Tensor | None) -> Tensor:
    if reset is None:
        return state
    return state.masked_fill(reset.view(-1, *(1,) * (state.ndim - 1)), 0)


def _full_cache(size: Size, dtype: torch.dtype, device: torch.device) -> Any:
    attention = next(case for case in CASES if case.op == "attention")
    return some_state(attention, size, dtype, device)


def cached(cache: Any) -> Contender:
    """Return attention by PyTorch to a full cache into which the step's pair is written."""
    keys, values = cache.k, cache.v

    def run(inputs: Inputs, reset: Tensor | None) -> Tensor:
        H = keys.shape[1]
        q, k, v = (inputs[n].repeat(1, H // inputs[n].shape[1], 1) for n in ("q", "k", "v"))
        keys[:, :, -1], values[:, :, -1] = k, v
        return scaled_dot_product_attention(q.unsqueeze(2), keys, values).squeeze(2)

    return Contender("SDPA, full cache, no resets", run, same=False)


def _cell(size: Size, dtype: torch.dtype, device: torch.device) -> Contender:
    width = size.H * size.D
    cell = torch.nn.LSTMCell(width, width, dtype=dtype, device=device)
    h, c = (torch.randn(size.B, width, dtype=dtype, device=device) for _ in range(2))

    def run(inputs: Inputs, reset: Tensor | None) -> Tensor:
        x = inputs["x"] if "x" in inputs else inputs["v"].flatten(1)
        return cell(x, (_cleared(h, reset), _cleared(c, reset)))[0]

    return Contender("torch.nn.LSTMCell", run, same=False)
