"""How long a call takes, on the CPU and on a GPU, in milliseconds."""

import statistics
import subprocess
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Call = Callable[[], object]

_QUANTILES = [0.5, 0.2, 0.8]


@dataclass(frozen=True)
class Timing:
    """Times of one call in ms."""

    median: float
    p20: float
    p80: float
    best: float | None = None
    graph: float | None = None
    """Median of replays of a CUDA graph: without what the host does."""
    no_graph: str = ""
    """Why there is none."""
    peak_mib: float | None = None
    """Memory on the GPU beyond what was there before."""


def time_cpu(calls: Mapping[Hashable, Call], rounds: int) -> dict[Hashable, Timing]:
    """Time calls in turns, so that other load strikes all alike, in CPU time of the process.

    Each call is made once more before it is timed: its memory is at hand and in the caches then,
    whoever was before it.
    """
    found: dict[Hashable, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            call()
            begin = time.process_time()
            call()
            found[name].append(1e3 * (time.process_time() - begin))
    return {name: _timing(times) for name, times in found.items()}


def _timing(times: list[float]) -> Timing:
    times = sorted(times)
    last = len(times) - 1
    p20, p80 = times[round(0.2 * last)], times[round(0.8 * last)]
    return Timing(statistics.median(times), p20, p80, best=times[0])


def time_cuda(call: Call, capturable: bool) -> Timing:
    """Time a call on the GPU with a cold L2 cache, and in a CUDA graph where that can be."""
    from triton.testing import do_bench, do_bench_cudagraph

    call()  # compiles and tunes
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    peak = (torch.cuda.max_memory_allocated() - before) / 2**20
    median, p20, p80 = do_bench(call, quantiles=_QUANTILES)
    if not capturable:
        return Timing(median, p20, p80, no_graph="waits for the GPU", peak_mib=peak)
    try:
        graph = do_bench_cudagraph(call, return_mode="median")
    except RuntimeError as error:
        return Timing(median, p20, p80, no_graph=str(error)[:200], peak_mib=peak)
    return Timing(median, p20, p80, graph=graph, peak_mib=peak)


def bandwidth() -> float:
    """Return bytes/s that copying a large tensor on the GPU reads and writes."""
    from triton.testing import do_bench

    x = torch.empty(2**28, dtype=torch.float32, device="cuda")
    y = torch.empty_like(x)
    return 2 * x.nbytes / (1e-3 * do_bench(lambda: y.copy_(x), return_mode="median"))


def surroundings(device: str) -> dict[str, Any]:
    """Return the commit, and the driver or the load of the machine."""
    here = {"commit": _output("git", "describe", "--always", "--dirty")}
    if device == "cuda":
        query = ("--query-gpu=driver_version,clocks.max.sm", "--format=csv,noheader")
        return here | {"driver": _output("nvidia-smi", *query), "bytes_per_s": bandwidth()}
    load = Path("/proc/loadavg")
    return here | {"load": load.read_text().split()[0] if load.exists() else "unknown"}


def _output(*command: str) -> str:
    here = Path(__file__).parent
    try:
        return subprocess.run(
            command, cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
