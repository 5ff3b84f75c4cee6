"""Compiles what the operators launch, for a GPU that need not be there.

    python tests/kernels/compile_for_gpu.py delta bfloat16 128             # all variants
    python tests/kernels/compile_for_gpu.py delta bfloat16 128 gated

Runs both directions of an operator on the CPU with heads of the given width; each launch compiles
its kernel, as on that GPU, and does nothing else. One line of JSON for each kernel: its bytes of
shared memory and, where cuobjdump says so, registers and bytes of stack of a thread.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget

from palaestra.kernels._common import runtime
from palaestra.kernels.verify.cases import CASES, Case, Size, forms, make_inputs

TARGET = GPUTarget("cuda", 90, 32)


class Driver:
    """What a launch asks the machine for."""

    def get_current_target(self) -> GPUTarget:
        return TARGET

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_launches() -> list[Any]:
    """Make each launch compile alone, and return the list that the results will be in."""
    found: list[Any] = []
    run = triton.JITFunction.run

    def compiled(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        found.append(run(self, *args, grid=grid, warmup=True, **kwargs))
        return found[-1]

    def all_configs(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        for config in self.configs:
            self.fn.run(*args, grid=grid, warmup=True, **kwargs, **config.all_kwargs())

    triton.runtime.driver.set_active(Driver())
    triton.JITFunction.run = compiled
    triton.runtime.Autotuner.run = all_configs
    return found


def launch(case: Case, size: Size, dtype: torch.dtype) -> None:
    """Call both directions of the chunk form, and the step form."""
    inputs = make_inputs(case, size, dtype, torch.device("cpu"))
    inputs = {name: x.requires_grad_() for name, x in inputs.items()}
    operator, options = forms(case.op), dict(case.options)
    o, state = operator.chunk(**inputs, output_final_state=True, impl="triton", **options)
    torch.autograd.grad(o.float().sum(), list(inputs.values()))
    with torch.no_grad():
        now = {name: x if name in case.timeless else x[:, 0] for name, x in inputs.items()}
        operator.step(**now, state=state, impl="triton", **options)


def resources(kernel: Any) -> Iterator[tuple[str, int]]:
    """Return what a kernel needs."""
    yield "shared", kernel.metadata.shared
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = (triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name)
        try:
            text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            return
    for entry in text.split():
        name, _, number = entry.partition(":")
        if name in ("REG", "STACK"):
            yield {"REG": "registers", "STACK": "stack"}[name], int(number)


def main(op: str, dtype: str, width: str, variant: str = "") -> None:
    import_module(f"palaestra.kernels.{op}.triton")
    # The operators refuse the CPU otherwise; the kernels themselves are compiled ones by now.
    runtime._interpreted = lambda: True
    # Numbers that nobody wrote would be wild indices.
    torch.empty, torch.empty_like = torch.zeros, torch.zeros_like
    torch.Tensor.new_empty = torch.Tensor.new_zeros
    found = compile_launches()
    for case in CASES:
        if case.op == op and variant in case.variant:
            found.clear()
            launch(case, Size(1, 128, 2, int(width)), getattr(torch, dtype))
            for kernel in {kernel.hash: kernel for kernel in found}.values():
                row = {"kernel": kernel.name, "variant": case.variant, "width": int(width)}
                row |= {"warps": kernel.metadata.num_warps, **dict(resources(kernel))}
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
