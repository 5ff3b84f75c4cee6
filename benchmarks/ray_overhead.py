"""Rollouts in two Ray workers against the same rollouts in this process.

    python benchmarks/ray_overhead.py

Both train the same PPO agent with memory on 5-arm bandits, with the torch threads of the preset.
Iterations alternate between the two. The overhead of an iteration is the time from asking for
fragments to holding them all, less the slowest worker's own collecting time: weights out, fragments
and states back, and waking up. It is divided by the number of fragments.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from palaestra.runs.config import RunConfig, load_config
from palaestra.runs.rollouts.local import LocalRollouts
from palaestra.runs.rollouts.worker import Rollouts
from palaestra.runs.training.train import build_learner

RESULTS = Path(__file__).parent / "results"


def iterate(rollouts: Rollouts, learner, config: RunConfig) -> tuple[float, float, int]:
    """Return seconds of one iteration, its overhead for each fragment and its agent steps."""
    start = time.perf_counter()
    found = rollouts.collect(learner.weights(), 0)
    waited = time.perf_counter() - start
    learner.update([r.fragment for r in found])
    seconds = time.perf_counter() - start
    own = (
        sum(r.seconds for r in found)
        if isinstance(rollouts, LocalRollouts)
        else max(r.seconds for r in found)
    )
    return seconds, (waited - own) / len(found), sum(r.fragment.env_steps for r in found)


def main() -> None:

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--preset", default="demo")
    parser.add_argument("-o", "--override", action="append", default=[])
    parser.add_argument("--out", type=Path, default=RESULTS / "ray_overhead.json")
    options = parser.parse_args()
    sides: dict[str, tuple[Rollouts, object, RunConfig]] = {}
    for name, workers in (("in-process", 0), ("ray, 2 workers", 2)):
        config = load_config(options.preset, options.override, rollout__workers=workers)
        from palaestra.runs.rollouts.make import make_rollouts

        torch.set_num_threads(config.threads)
        sides[name] = (make_rollouts(config), build_learner(config), config)
    found: dict[str, list[tuple[float, float, int]]] = {name: [] for name in sides}
    for i in range(options.iterations + 3):
        for name, side in sides.items():
            result = iterate(*side)
            if i >= 3:  # the first ones warm up
                found[name].append(result)
    report = {}
    for name, results in found.items():
        seconds, overhead, steps = (np.array(column) for column in zip(*results, strict=True))
        rates = steps / seconds
        report[name] = {
            "steps_per_s": rates.tolist(),
            "median_steps_per_s": float(np.median(rates)),
            "overhead_ms_per_fragment": (1e3 * overhead).tolist(),
            "median_overhead_ms_per_fragment": float(1e3 * np.median(overhead)),
        }
        print(
            f"{name:<16} median {np.median(rates):9,.0f} steps/s, overhead per fragment "
            f"median {1e3 * np.median(overhead):.2f} ms, max {1e3 * overhead.max():.2f} ms"
        )
    base, ray_rates = (np.array(r["steps_per_s"]) for r in report.values())
    ratio = ray_rates / base
    report["ratio"] = {"median": float(np.median(ratio)), "pairs": ratio.tolist()}
    print(f"ray / in-process: median {np.median(ratio):.3f} (min {ratio.min():.3f}, "
          f"max {ratio.max():.3f}) over {len(ratio)} pairs")  # fmt: skip
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    for rollouts, _, _ in sides.values():
        rollouts.close()


if __name__ == "__main__":
    main()
