"""The sequence operators against the loop over tokens, fla-core and PyTorch, on CPU or GPU.

    python benchmarks/kernels.py                                   # CPU, one thread
    python benchmarks/kernels.py --device cuda
    python benchmarks/kernels.py --device cuda --op delta --shapes rl --out delta-rl

Each operator is tested first, as `palaestra kernels check` does; where that fails, times are
printed but no comparison. `--shapes` takes groups of sizes (kernel_shapes.py): cpu, rl (windows of
a recurrent update), llm (long windows), acting (one step for many rows), stress (Mesa's hard
inputs, not timed). Contenders are in kernel_peers.py and kernel_acting.py; p is the probability of
a reset.

CPU: time of the process in float32, contenders in turns, the best of all rounds compared.
GPU: bfloat16, medians with a cold L2 cache, and of CUDA graph replays; what a peer needs for resets
is inside its time. The columns on the right say how many times as long as ours a contender takes
(forward and backward, for a step forward alone), and the time against that without resets.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from kernel_acting import acting, one_step
from kernel_peers import OURS, Contender, contenders
from kernel_shapes import (
    DEFAULTS,
    SECTIONS,
    SMALL,
    acting_bytes,
    probabilities,
    sizes,
    window_bytes,
)
from kernel_stress import stress, stress_table
from kernel_table import group_table
from kernel_timing import Call, surroundings, time_cpu, time_cuda
from torch import Tensor

from palaestra.kernels.verify.cases import CASES, CELLS, OPERATORS, Case, Inputs, Size, make_inputs
from palaestra.kernels.verify.check import Row, as_json, check, machine, passed, table

RESULTS = Path(__file__).parent / "results"

LINES: list[str] = []
"""What was printed, for the raw output."""


def say(*lines: str) -> None:
    for line in lines:
        print(line, flush=True)
        LINES.append(line)


class Group:
    """All contenders on one operator at one size."""

    def __init__(self, section: str, case: Case, size: Size, device: torch.device) -> None:
        self.section, self.case, self.size, self.device = section, case, size, device
        half = device.type == "cuda" and case.op not in CELLS
        self.dtype = torch.bfloat16 if half else torch.float32
        self.rows: list[dict[str, Any]] = []
        self.calls: dict[tuple[int, str], tuple[Call, bool]] = {}
        self._ours: dict[float, Tensor] = {}

    def prepare(self) -> None:
        """Make inputs and run every contender once; one that fails becomes a row with its error."""
        if self.device.type == "cuda":
            torch.compiler.reset()  # else it would give up after a few sizes
        step = self.section == "acting"
        make = partial(one_step, self.case) if step else partial(make_inputs, self.case)
        inputs = make(self.size, self.dtype, self.device)
        if step:
            found = acting(self.case, self.size, self.dtype, self.device)
        else:
            found = contenders(self.case, self.section, self.size, self.dtype, self.device)
            inputs = {name: x.requires_grad_() for name, x in inputs.items()}
        for contender in found:
            for p in probabilities(self.section, self.size):
                if contender.when(p):
                    self._add(contender, inputs, p)

    def _add(self, contender: Contender, inputs: Inputs, p: float) -> None:
        row = {
            "section": self.section,
            "op": self.case.op,
            "variant": self.case.variant,
            **self.size._asdict(),
            "dtype": str(self.dtype).removeprefix("torch."),
            "p": p,
            "contender": contender.name,
            "forward": None,
            "both": None,
            "difference": None,
            "note": f"{contender.needs} is not installed" if contender.missing else "",
        }
        self.rows.append(row)
        if contender.missing:
            return
        try:
            calls = self._passes(
                contender, inputs, some_resets(self.size, p, self.device, self.section)
            )
            o = calls["forward"]()
            row["difference"] = self._difference(contender, p, o)
            row["note"] = "" if o.isfinite().all() else "outputs are not finite"
        except Exception as error:
            row["note"] = told(error)
            return
        for name, call in calls.items():
            capturable = p == 0 or contender.capturable
            self.calls[len(self.rows) - 1, name] = call, capturable

    def _passes(
        self, contender: Contender, inputs: Inputs, reset: Tensor | None
    ) -> dict[str, Callable[[], Any]]:
        def forward() -> Tensor:
            with torch.no_grad():
                return contender.run(inputs, reset)

        if self.section == "acting":
            return {"forward": forward}
        leaves = [*inputs.values(), *contender.parameters]
        given = torch.randn_like(forward())

        def both() -> object:
            o = contender.run(inputs, reset)
            return torch.autograd.grad(o, leaves, given, allow_unused=True)

        both()
        return {"forward": forward, "both": both}

    def _difference(self, contender: Contender, p: float, o: Tensor) -> float | None:
        """Return max |o - ours| / max |ours|."""
        if contender.name == OURS:
            self._ours[p] = o
        if not contender.same or p not in self._ours:
            return None
        true = self._ours[p].double()
        difference = float((o.double() - true).abs().max() / true.abs().max())
        return difference if math.isfinite(difference) else None

    def measure(self, rounds: int) -> None:
        """Time all calls and fill the rows."""
        if self.device.type == "cpu":
            calls = {key: call for key, (call, _) in self.calls.items()}
            for (i, name), timing in time_cpu(calls, rounds).items():
                self.rows[i][name] = asdict(timing)
            return
        for (i, name), (call, capturable) in self.calls.items():
            try:
                self.rows[i][name] = asdict(time_cuda(call, capturable))
            except Exception as error:
                self.rows[i]["note"] = told(error)

    def lines(self, good: bool, bytes_per_s: float | None) -> list[str]:
        """Return the rows as text; without comparisons where the test of the operator failed."""
        title = f"{self.section}: {self.case.name}, {describe(self.size)}, {self.rows[0]['dtype']}"
        floor = self.floor()
        if bytes_per_s and floor:
            us = 1e6 * floor / bytes_per_s
            title += f"; {floor / 1e6:.0f} MB forward at least, {us:.1f} us"
        return [title, *group_table(self.rows, good), ""]

    def floor(self) -> int:
        """Return the bytes that a forward pass or a step moves at least; 0 where not known."""
        if self.section == "acting":
            return acting_bytes(self.case, self.size)
        return 0 if self.case.op in CELLS else window_bytes(self.size, self.dtype.itemsize)


def some_resets(size: Size, p: float, device: torch.device, section: str = "") -> Tensor | None:
    """Return a mask `[B, T]`, or `[B]` for a step; None without resets."""
    if p == 0:
        return None
    generator = torch.Generator(device).manual_seed(1)
    shape = (size.B,) if section == "acting" else (size.B, size.T)
    return torch.rand(shape, device=device, generator=generator) < p


def describe(size: Size) -> str:
    return " ".join(f"{name} {n}" for name, n in size._asdict().items())


def told(error: Exception) -> str:
    """Return an error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


def self_tests(ops: list[str], device: str) -> dict[str, list[Row]]:
    """Test every operator and print the result."""
    found = {op: check([op], device) for op in ops}
    say(*table([row for rows in found.values() for row in rows]), "")
    return found


def write(out: Path, report: dict[str, Any]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{out}.json").write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    Path(f"{out}.txt").write_text("\n".join(LINES) + "\n")


def groups(sections: Sequence[str], ops: Sequence[str], device: torch.device) -> Iterator[Group]:
    """Return all sizes of all operators, one after the other."""
    for section in sections:
        for case in CASES:
            if case.op in ops:
                for size in sizes(section, case, device.type):
                    yield Group(section, case, size, device)


def stressed(device: torch.device) -> list[dict[str, Any]]:
    """Give Mesa its hard inputs and print what comes out."""
    T, dtype = (4096, torch.bfloat16) if device.type == "cuda" else (512, torch.float32)
    size = Size(4, T, 4, 64)
    rows = stress(size, dtype, device)
    say(f"stress: mesa, {describe(size)}, {dtype}", *stress_table(rows), "")
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--op", action="append", choices=OPERATORS, help="default: all")
    parser.add_argument("--shapes", action="append", choices=SECTIONS, help="default: the device's")
    parser.add_argument("--rounds", type=int, default=7, help="of the CPU's timing")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/kernels-DEVICE")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    LINES.clear()
    sections = options.shapes or DEFAULTS[options.device]
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here; cpu is accepted.")
    if options.device == "cpu" and not set(sections) <= set(SMALL):
        parser.error(f"--shapes: a CPU takes {', '.join(SMALL)}.")
    device, ops = torch.device(options.device), options.op or list(OPERATORS)
    here = machine() | surroundings(options.device)
    say(*(f"{name:<20} {value}" for name, value in here.items() if value is not None), "")
    tests = self_tests(ops, options.device)
    rows: list[dict[str, Any]] = []
    report: dict[str, Any] = {
        "machine": here,
        "self_tests": [row for found in tests.values() for row in as_json(found)],
        "rows": rows,
        "stress": [],
    }
    out = options.out or RESULTS / f"kernels-{options.device}"
    for group in groups(sections, ops, device):
        group.prepare()
        group.measure(options.rounds)
        say(*group.lines(passed(tests[group.case.op]), here.get("bytes_per_s")))
        rows += group.rows
        write(out, report)  # what is there stays, should the rest not come to its end
    if "stress" in sections and "mesa" in ops:
        report["stress"] = stressed(device)
    write(out, report)


if __name__ == "__main__":
    main()
