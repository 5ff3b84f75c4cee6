"""Compiles operators with `torch.compile`, as for a GPU that need not be there.

    python tests/kernels/graph_for_gpu.py gla 17                           # all variants
    python tests/kernels/graph_for_gpu.py gla 17 plain

One graph without breaks has to hold a window of that many steps, forward and backward, and another
one a step. The tensors lie on the CPU, so no kernel runs; what operators do for CUDA alone is guard
the device, and this they do here, too. Inductor writes its code, from which each kernel is compiled
for an H100 with the types that torch gives to arguments. One line of JSON names a form's kernels.
"""

import json
import sys
import tempfile
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch
import torch.utils._triton
import triton
from compile_for_gpu import TARGET, Driver
from triton.compiler import ASTSource

from palaestra.kernels._common import runtime
from palaestra.kernels.verify.cases import CASES, Case, Size, forms, make_inputs


class Nothing:
    """A kernel that is never run."""

    def run(self, *args: Any, **kwargs: Any) -> None:
        pass

    __call__ = run


def pretend() -> dict[str, str]:
    """Make torch take this machine for one with CUDA; return where the kernels' code will be."""
    torch.utils._triton.has_triton = lambda: True
    triton.runtime.driver.set_active(Driver())
    torch.cuda._exchange_device = lambda device: 0
    torch.cuda._maybe_exchange_device = lambda device: 0
    runtime._interpreted = lambda: True
    runtime.guard = lambda device: torch.cuda.device(0)

    from torch._inductor import async_compile, config

    found: dict[str, str] = {}

    def keep(self: Any, name: str, source: str, device_str: str = "cuda") -> Nothing:
        found[name] = source
        return Nothing()

    config.compile_threads, config.force_disable_caches = 1, True
    async_compile.AsyncCompile.triton = keep
    async_compile.AsyncCompile.cpp_pybinding = lambda self, *args, **kwargs: Nothing()
    # Numbers that nobody wrote would be wild indices.
    guards = torch._C._dynamo.guards
    empty = guards._empty_strided_cpu
    guards._empty_strided_cpu = lambda *args: empty(*args).zero_()
    return found


def compile_kernel(source: str) -> None:
    """Compile a kernel as written by Inductor."""
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder) / "kernel.py").write_text(source)
        spec = spec_from_file_location("kernel", path)
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        kernel = next(x for x in vars(module).values() if hasattr(x, "triton_meta"))
        meta, config = kernel.triton_meta, kernel.configs[0]
        names = kernel.fn.arg_names
        constants = {**meta["constants"], **config.kwargs}
        signature = {**meta["signature"], **dict.fromkeys(config.kwargs, "constexpr")}
        signature = {name: signature[name] for name in names}
        values = {(names.index(name),): value for name, value in constants.items()}
        options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
        ast = ASTSource(kernel.fn, signature, values, meta["configs"][0])
        triton.compile(ast, target=TARGET, options=options)


def window(case: Case, inputs: dict[str, torch.Tensor]) -> None:
    """Read a window, with all gradients."""
    chunk, options = forms(case.op).chunk, dict(case.options)

    def read(inputs: dict[str, torch.Tensor], reset: torch.Tensor) -> Any:
        return chunk(**inputs, reset=reset, output_final_state=True, impl="triton", **options)

    inputs = {name: x.requires_grad_() for name, x in inputs.items()}
    reset = torch.zeros(inputs["q"].shape[:2], dtype=torch.bool)
    o, _ = torch.compile(read, fullgraph=True)(inputs, reset)
    torch.autograd.grad(o.float().sum(), list(inputs.values()))


@torch.no_grad()
def step(case: Case, inputs: dict[str, torch.Tensor]) -> None:
    """Read one step after an empty state."""
    operator, options = forms(case.op), dict(case.options)

    def read(inputs: dict[str, torch.Tensor], state: Any, reset: torch.Tensor) -> Any:
        return operator.step(**inputs, state=state, reset=reset, impl="triton", **options)

    first = {name: x[:, :1] if name not in case.timeless else x for name, x in inputs.items()}
    _, state = operator.chunk(**first, output_final_state=True, impl="reference", **options)
    now = {name: x[:, 0] if name not in case.timeless else x for name, x in inputs.items()}
    compiled = torch.compile(read, fullgraph=True)
    compiled(now, state, torch.zeros(len(now["q"]), dtype=torch.bool))


def main(op: str, steps: str, *variants: str) -> None:
    found = pretend()
    import_module(f"palaestra.kernels.{op}.triton")
    for case in CASES:
        if case.op != op or (variants and case.variant not in variants):
            continue
        inputs = make_inputs(case, Size(2, int(steps), 2, 16), torch.bfloat16, torch.device("cpu"))
        for run in (window, step):
            torch._dynamo.reset()
            found.clear()
            run(case, inputs)
            for source in found.values():
                compile_kernel(source)
            row = {"form": run.__name__, "variant": case.variant, "kernels": sorted(found)}
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
