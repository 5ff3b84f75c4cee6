"""`torch.compile` takes the kernels into one graph, forward and backward, without a GPU to see it.

That graph is also the proof that nothing on the way from the call to the launches asks the device
for a number: such a question would break it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_compile import KERNELS, missing

PROGRAM = Path(__file__).parent / "graph_for_gpu.py"

STEP = {op: f"{op}_step_kernel" for op in KERNELS} | {"mesa": "mesa_fwd_kernel"}
"""The kernel of each operator's step form."""

VARIANTS = {"gla": ("plain", "per channel"), "delta": ("gated",)}
"""Those that are compiled here; without and with a decay."""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]


@pytest.mark.parametrize("op", KERNELS)
def test_one_graph_holds_all_kernels_of_an_operator_as_torch_compiles_them(
    tmp_path: Path, op: str
) -> None:
    caches = {"TRITON_CACHE_DIR": str(tmp_path / "t"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    environment = {**os.environ, **caches, "OMP_NUM_THREADS": "1"}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, str(PROGRAM), op, "17", *VARIANTS.get(op, ())]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    rows = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    assert {row["form"] for row in rows} == {"window", "step"}
    expected = {
        "window": sorted(x for x in KERNELS[op] if "_step_" not in x),
        "step": [STEP[op]],
    }
    for row in rows:
        assert row["kernels"] == expected[row["form"]], row
