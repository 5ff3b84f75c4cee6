"""What only a GPU can show: run `pytest tests/kernels -m gpu` on a machine with one."""

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor

from palaestra.kernels._common.runtime import HAS_TRITON
from palaestra.kernels.verify.accuracy import BOUNDS, chunk_errors
from palaestra.kernels.verify.cases import CASES, Case, Inputs, Size, forms, make_inputs

DEVICE = torch.device("cuda")
SIZE = Size(B=3, T=150, H=2, D=64)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (torch.cuda.is_available() and HAS_TRITON), reason="there is no GPU"),
]
every_case = pytest.mark.parametrize(
    "case", [case for case in CASES if "triton" in case.impls], ids=lambda case: case.name
)


class Window:
    """Tensors that stay in their place, and what an operator makes of them."""

    def __init__(self, case: Case, dtype: torch.dtype) -> None:
        self.case, self.operator, self.options = case, forms(case.op), dict(case.options)
        self.inputs = make_inputs(case, SIZE, dtype, DEVICE)
        self.reset = torch.zeros(SIZE.B, SIZE.T, dtype=torch.bool, device=DEVICE)
        self.state = self.some_state(1)

    def some_state(self, seed: int) -> Any:
        """Return the state in the middle of an episode."""
        inputs = self.drawn(seed)
        options = self.options | dict(self.case.memory)
        with torch.no_grad():
            return self.operator.recurrent(**inputs, output_final_state=True, **options)[1]

    def drawn(self, seed: int) -> Inputs:
        dtype = self.inputs["q"].dtype
        return make_inputs(self.case, SIZE, dtype, DEVICE, seed)

    def fill(self, seed: int) -> None:
        """Write other inputs, resets and another state."""
        generator = torch.Generator(DEVICE).manual_seed(seed)
        chance = torch.rand(self.reset.shape, device=DEVICE, generator=generator)
        self.reset.copy_(chance < 0.1)
        for name, x in self.drawn(seed).items():
            self.inputs[name].copy_(x)
        for x, y in zip(parts(self.state), parts(self.some_state(seed + 1)), strict=True):
            x.copy_(y)

    def learn(self) -> list[Tensor]:
        """Return outputs, final state and gradients of the window."""
        inputs = {name: x.detach().requires_grad_() for name, x in self.inputs.items()}
        o, state = self.operator.chunk(
            **inputs,
            reset=self.reset,
            initial_state=self.state,
            output_final_state=True,
            impl="triton",
            **self.options,
        )
        gradients = torch.autograd.grad(o.float().square().sum(), list(inputs.values()))
        return [o.detach(), *(x.detach() for x in parts(state)), *gradients]

    @torch.no_grad()
    def act(self) -> list[Tensor]:
        """Return the output of the first step, and the state after it."""
        timeless = self.case.timeless
        now = {name: x if name in timeless else x[:, 0] for name, x in self.inputs.items()}
        o, state = self.operator.step(
            **now, state=self.state, reset=self.reset[:, 0], **self.options
        )
        return [o, *parts(state)]


def parts(state: Any) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    return [getattr(state, field.name) for field in fields(state)]


def captured(run: Callable[[], list[Tensor]]) -> tuple[torch.cuda.CUDAGraph, list[Tensor]]:
    """Return a graph of `run`, and where its results will be."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run()
    return graph, results


@pytest.fixture
def watched() -> Iterator[Callable[[str], None]]:
    """Set what happens where the host waits for the device."""
    yield torch.cuda.set_sync_debug_mode
    torch.cuda.set_sync_debug_mode("default")


@every_case
@pytest.mark.parametrize("form", ["learn", "act"])
def test_a_captured_graph_replays_other_inputs_and_resets(case: Case, form: str) -> None:
    window = Window(case, torch.bfloat16)
    run = getattr(window, form)
    graph, results = captured(run)
    for seed in (2, 3):
        window.fill(seed)
        graph.replay()
        for found, expected in zip(results, run(), strict=True):
            assert torch.equal(found, expected)


@every_case
@pytest.mark.parametrize("form", ["learn", "act"])
def test_the_host_never_waits_for_the_device(
    case: Case, form: str, watched: Callable[[str], None]
) -> None:
    window = Window(case, torch.bfloat16)
    run = getattr(window, form)
    expected = run()
    watched("error")
    found = run()
    watched("default")
    assert all(map(torch.equal, found, expected))


@every_case
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_two_runs_are_equal_bit_by_bit(case: Case, dtype: torch.dtype) -> None:
    window = Window(case, dtype)
    window.fill(2)
    for first, second in zip(window.learn(), window.learn(), strict=True):
        assert torch.equal(first, second)


@every_case
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_errors_against_float64_are_within_the_bounds(case: Case, dtype: torch.dtype) -> None:
    errors = list(chunk_errors(forms(case.op), "triton", dtype, DEVICE, case))
    assert max(errors, key=lambda error: error.ratio).ratio <= 1


@every_case
def test_compiled_in_one_graph_it_gives_the_same(case: Case) -> None:
    window = Window(case, torch.float32)
    window.fill(2)
    o, *state = window.learn()
    options = dict(reset=window.reset, initial_state=window.state, output_final_state=True)

    def read(inputs: Inputs) -> tuple[Tensor, Any]:
        return window.operator.chunk(**inputs, **options, impl="triton", **window.options)

    inputs = {name: x.detach().requires_grad_() for name, x in window.inputs.items()}
    found, last = torch.compile(read, fullgraph=True)(inputs)
    gradients = torch.autograd.grad(found.square().sum(), list(inputs.values()))
    in_outputs, in_gradients = BOUNDS[torch.float32]
    expected = [o, *state]
    results = [found, *parts(last), *gradients]
    for i, (x, y) in enumerate(zip(results, expected, strict=True)):
        bound = in_outputs if i <= len(parts(last)) else in_gradients
        assert (x - y).abs().max() <= bound * y.abs().max()
