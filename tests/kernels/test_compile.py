"""The Triton kernels compile for a GPU, which the interpreter does not show, and fit on an H100.

Widths here are a choice that takes a minute; `compile_for_gpu.py` does any.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from palaestra.kernels._common.runtime import HAS_TRITON

PROGRAM = Path(__file__).parent / "compile_for_gpu.py"

SHARED = 227 * 1024
"""Bytes of shared memory that a block can have."""

KERNELS = {
    "attention": {
        "attention_fwd_kernel",
        "attention_bwd_kernel_dq",
        "attention_bwd_kernel_dkv",
        "attention_step_kernel",
    },
    "gla": {"gla_fwd_kernel", "gla_bwd_kernel_q", "gla_bwd_kernel_kv", "gla_step_kernel"},
    "delta": {"delta_fwd_kernel", "delta_bwd_kernel", "delta_step_kernel"},
    "mesa": {"mesa_fwd_kernel", "mesa_bwd_kernel_solve", "mesa_bwd_kernel_back"},
    "rat": {
        "rat_scan_fwd_kernel",
        "rat_scan_bwd_kernel",
        "rat_attention_fwd_kernel",
        "rat_attention_bwd_kernel_queries",
        "rat_attention_bwd_kernel_keys",
        "rat_step_kernel",
    },
}


def missing() -> str:
    if not HAS_TRITON or (backend := find_spec("triton.backends.nvidia")) is None:
        return "the package triton or its NVIDIA backend is missing"
    tools = Path(str(backend.origin)).parent / "bin"
    return "" if any(tools.glob("ptxas*")) else "triton comes without NVIDIA's assembler"


pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]


@pytest.mark.parametrize(
    ("op", "dtype", "width", "variant"),
    [
        ("attention", "bfloat16", 64, ""),
        ("gla", "bfloat16", 64, "per"),
        ("gla", "float32", 16, "plain"),
        ("delta", "bfloat16", 128, "gated"),
        ("delta", "float32", 16, "plain"),
        ("mesa", "float32", 16, ""),
        ("rat", "bfloat16", 128, ""),
    ],
)
def test_every_kernel_compiles_and_fits_on_an_h100(
    tmp_path: Path, op: str, dtype: str, width: int, variant: str
) -> None:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, str(PROGRAM), op, dtype, str(width), variant]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    rows = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    assert {row["kernel"] for row in rows} == KERNELS[op]
    for row in rows:
        assert row["shared"] <= SHARED, row
        # Numbers are on the stack only where the registers are used up.
        assert row.get("stack", 0) < 1024 or row["registers"] > 128, row
