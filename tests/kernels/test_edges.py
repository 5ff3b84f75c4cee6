"""What holds at the edges for all operators alike, in every form and every implementation."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from palaestra.kernels._common.runtime import HAS_TRITON
from palaestra.kernels.verify.cases import CASES, CELLS, Case, Inputs, Size, forms, make_inputs

CPU = torch.device("cpu")
SMALL = Size(B=2, T=5, H=2, D=4)
ONE = Size(B=1, T=5, H=1, D=4)

Reader = Callable[..., tuple[Tensor, Any]]
"""Reads a window: `reader(inputs, reset=, initial_state=) -> outputs and the final state`."""


def readers(case: Case, **options: Any) -> dict[str, Reader]:
    """Return every form in every implementation, all called alike."""
    impls = case.impls if HAS_TRITON else ("reference",)
    found = {f"chunk {impl}": reader_of(case, "chunk", impl=impl, **options) for impl in impls}
    found["recurrent"] = reader_of(case, "recurrent", **options)
    return found | {f"step {impl}": stepper(case, impl, **options) for impl in impls}


def reader_of(case: Case, form: str, **options: Any) -> Reader:
    run = getattr(forms(case.op), form)

    def read(inputs: Inputs, **given: Any) -> tuple[Tensor, Any]:
        return run(**inputs, output_final_state=True, **{**case.options, **options, **given})

    return read


def stepper(case: Case, impl: str, **options: Any) -> Reader:
    step = forms(case.op).step

    def read(inputs: Inputs, reset: Tensor, initial_state: Any = None) -> tuple[Tensor, Any]:
        state, rows = initial_state, []
        if state is None:
            state = first_state(case, inputs)
        for t in range(reset.shape[1]):
            now = {n: x if n in case.timeless else x[:, t] for n, x in inputs.items()}
            o_t, state = step(
                **now, state=state, reset=reset[:, t], impl=impl, **case.options, **options
            )
            rows.append(o_t)
        return torch.stack(rows, 1), state

    return read


def first_state(case: Case, inputs: Inputs) -> Any:
    """Return the state before the first step."""
    none = {n: x if n in case.timeless else x[:, :0] for n, x in inputs.items()}
    return reader_of(case, "recurrent", **case.memory)(none)[1]


def quick(case: Case) -> dict[str, Any]:
    """Return options with which Mesa's solves end early, for what does not depend on them."""
    return {"num_steps": 2} if case.op == "mesa" else {}


def tensors(state: Any) -> list[Tensor]:
    return [getattr(state, f.name) for f in fields(state)] if is_dataclass(state) else [state]


def some_inputs(case: Case, size: Size = SMALL, dtype: torch.dtype = torch.float64) -> Inputs:
    return make_inputs(case, size, dtype, CPU)


def no_resets(size: Size = SMALL) -> Tensor:
    return torch.zeros(size.B, size.T, dtype=torch.bool)


def gradients(read: Reader, inputs: Inputs, **given: Any) -> tuple[Tensor, ...]:
    """Return the gradients of all inputs for fixed ones of outputs and final state."""
    leaves = {n: x.detach().clone().requires_grad_() for n, x in inputs.items()}
    o, last = read(leaves, **given)
    ends = [x for x in (o, *tensors(last)) if x.requires_grad]
    generator = torch.Generator().manual_seed(2)
    weights = [torch.randn(x.shape, generator=generator).to(x.dtype) for x in ends]
    return torch.autograd.grad(ends, list(leaves.values()), weights)


def zero_gradients(read: Reader, inputs: Inputs) -> tuple[Tensor | None, ...]:
    """Return the gradients of all inputs for the sum of the outputs."""
    leaves = {n: x.detach().clone().requires_grad_() for n, x in inputs.items()}
    loss = read(leaves)[0].sum()
    return torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)


def every(
    cases: tuple[Case, ...], *, differentiable: bool = False, windows: bool = False
) -> pytest.MarkDecorator:
    """Run a test for all readers of all `cases`, or for those with gradients, or of windows."""
    found = [
        pytest.param(case, name, id=f"{case.name}, {name}".replace(" ", "-"))
        for case in cases
        for name in readers(case)
        if not (differentiable and name == "step triton") and not (windows and "step" in name)
    ]
    return pytest.mark.parametrize(("case", "name"), found)


DECAYING = tuple(case for case in CASES if "g" in some_inputs(case) and case.op != "rat")
"""Those with a log decay."""


@every(CASES)
@pytest.mark.parametrize(("dtype", "value"), [(torch.float16, 1100), (torch.float32, 8e36)])
def test_finite_numbers_stay_so_where_their_sum_would_not(
    case: Case, name: str, dtype: torch.dtype, value: float
) -> None:
    size = Size(B=1, T=3, H=1, D=64)
    inputs = some_inputs(case, size, dtype)
    key = "x" if case.op in CELLS else "v"
    inputs[key] = torch.full_like(inputs[key], value)
    assert not inputs[key][0, 0].sum().isfinite() or key == "x"
    wide = {n: x.double() for n, x in inputs.items()}
    o = readers(case)[name](inputs, reset=no_resets(size))[0]
    expected = reader_of(case, "recurrent")(wide)[0]
    error = (o.double() - expected).abs().max() / expected.abs().max()
    assert error < 16 * torch.finfo(dtype).eps


@every(DECAYING, differentiable=True)
def test_minus_infinity_forgets_as_a_reset_does(case: Case, name: str) -> None:
    inputs, reset, at = some_inputs(case, ONE), no_resets(ONE), [1, 2, 4]
    reset[:, at] = True
    read, forgetting = readers(case, **case.exact)[name], {n: x.clone() for n, x in inputs.items()}
    forgetting["g"][:, at] = -torch.inf
    one, two = read(forgetting, reset=no_resets(ONE)), read(inputs, reset=reset)
    for x, y in zip((one[0], *tensors(one[1])), (two[0], *tensors(two[1])), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-12)
    found = gradients(read, forgetting, reset=no_resets(ONE))
    for x, y in zip(found, gradients(read, inputs, reset=reset), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-11)


@every(DECAYING, differentiable=True)
def test_some_heads_forget_everything_in_all_forms_alike(case: Case, name: str) -> None:
    inputs, reset = some_inputs(case), no_resets()
    reset[1, 3] = True
    for place, value in (((0, 2, 1), -torch.inf), ((1, 3, 0), -torch.inf), ((1, 4, 1), -1e30)):
        inputs["g"][place] = value
    expected = reader_of(case, "recurrent", **case.exact)
    read = readers(case, **case.exact)[name]
    one, two = read(inputs, reset=reset), expected(inputs, reset=reset)
    for x, y in zip((one[0], *tensors(one[1])), (two[0], *tensors(two[1])), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-12)
    ours, theirs = (gradients(run, inputs, reset=reset) for run in (read, expected))
    for x, y in zip(ours, theirs, strict=True):
        assert x.isfinite().all()
        torch.testing.assert_close(x, y, rtol=0, atol=1e-11)


@every(DECAYING)
@pytest.mark.parametrize("value", [0.5, torch.nan])
def test_a_log_decay_above_0_is_not_finite_and_at_resets_not_read(
    case: Case, name: str, value: float
) -> None:
    inputs, reset = some_inputs(case), no_resets()
    reset[:, 3] = True
    read = readers(case, **quick(case))[name]
    clean = read(inputs, reset=reset)[0]
    inputs["g"][0, 1, 1] = value
    inputs["g"][1, 3] = torch.inf if value > 0 else value
    o = read(inputs, reset=reset)[0]
    nan = torch.zeros(SMALL[:3], dtype=torch.bool)
    nan[0, 1:3, 1] = True
    assert torch.equal(o.isnan(), nan.unsqueeze(3).expand_as(o))
    torch.testing.assert_close(o[~nan], clean[~nan])


@every(tuple(case for case in CASES if case.op != "attention"), differentiable=True)
def test_second_derivatives_are_right_or_refused(case: Case, name: str) -> None:
    size = Size(B=1, T=3, H=1, D=2)
    inputs = {n: x.requires_grad_() for n, x in some_inputs(case, size).items()}
    read = readers(case, **case.exact)[name]

    def run(*xs: Tensor) -> Tensor:
        return read(dict(zip(inputs, xs, strict=True)), reset=no_resets(size))[0]

    if name.startswith("chunk"):
        with pytest.raises(RuntimeError, match=r"^create_graph: .* no second derivatives"):
            torch.autograd.grad(run(*inputs.values()).square().sum(), inputs, create_graph=True)
    else:
        assert torch.autograd.gradgradcheck(run, tuple(inputs.values()), fast_mode=True)


@every(tuple(case for case in CASES if case.op == "attention"), differentiable=True)
def test_second_derivatives_of_attention_are_refused(case: Case, name: str) -> None:
    inputs = {n: x.requires_grad_() for n, x in some_inputs(case).items()}

    def twice() -> None:
        o = readers(case)[name](inputs, reset=no_resets())[0]
        first = torch.autograd.grad(o.square().sum(), inputs["q"], create_graph=True)[0]
        torch.autograd.grad(first.square().sum(), inputs["q"])

    with pytest.raises(RuntimeError, match=r"second derivatives|not implemented"):
        twice()


@every(CASES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_autocast_changes_nothing(case: Case, name: str, dtype: torch.dtype) -> None:
    inputs, read = some_inputs(case, ONE, dtype), readers(case, **quick(case))[name]
    given = {"reset": no_resets(ONE)}
    given["reset"][0, 2] = True
    o, last = read(inputs, **given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        o_cast, last_cast = read(inputs, **given)
    assert o.dtype == dtype
    for x, y in zip((o, *tensors(last)), (o_cast, *tensors(last_cast)), strict=True):
        assert x.dtype == y.dtype
        assert torch.equal(x, y)
    if name.startswith("chunk"):
        expected = gradients(read, inputs, **given)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = gradients(read, inputs, **given)
        assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))


@every(CASES)
def test_no_rows_give_no_outputs(case: Case, name: str) -> None:
    size = SMALL._replace(B=0)
    inputs = some_inputs(case, size)
    o, last = readers(case)[name](inputs, reset=no_resets(size))
    assert o.shape[:2] == (0, size.T)
    assert o.dtype == torch.float64
    assert all(len(x) == 0 for x in tensors(last))


@every(CASES, windows=True)
def test_no_steps_leave_the_state_as_it_is(case: Case, name: str) -> None:
    inputs, none = some_inputs(case), some_inputs(case, SMALL._replace(T=0))
    state = reader_of(case, "recurrent", **case.memory)(inputs)[1]
    read = readers(case)[name]
    o, last = read(none, initial_state=state)
    assert o.shape == (
        SMALL.B,
        0,
        *(forms(case.op).recurrent(**inputs, **case.options)[0].shape[2:]),
    )
    for x, y in zip(tensors(last), tensors(state), strict=True):
        assert torch.equal(x, y)
    first = read(none)[1]
    assert not any(x.any() for x in tensors(first))
    assert all(x is None or not x.any() for x in zero_gradients(read, none))


@every(CASES)
def test_what_does_not_fit_is_refused_by_name(case: Case, name: str) -> None:
    form, _, impl = name.partition(" ")
    run, inputs = getattr(forms(case.op), form), some_inputs(case)
    options: dict[str, Any] = dict(case.options) | ({"impl": impl} if impl else {})
    if form == "step":
        options["state"] = first_state(case, inputs)
        inputs = {n: x if n in case.timeless else x[:, 0] for n, x in inputs.items()}
        with pytest.raises(ValueError, match=r"^reset: "):
            run(**inputs, **options, reset=torch.zeros(SMALL.B + 1, dtype=torch.bool))
        return
    with pytest.raises(ValueError, match=r"^reset: "):
        run(**inputs, **options, reset=no_resets().t())
    with pytest.raises(ValueError, match=r"^cu_seqlens: packed episodes need one row"):
        run(**inputs, **options, cu_seqlens=torch.tensor([0, SMALL.T]))
    one = {n: x if n in case.timeless else x[:1] for n, x in inputs.items()}
    for bounds in ([0, 4, 3, 5], [1, 5], [0, 4], [0, 6], [-1, 5], []):
        with pytest.raises(ValueError, match=r"^cu_seqlens: .* is not \[0, .., 5\] that never"):
            run(**one, **options, cu_seqlens=torch.tensor(bounds, dtype=torch.int64))
