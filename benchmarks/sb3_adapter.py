"""What the adapter costs: bare Stable-Baselines3 against `sb3/ppo` on the same work, in turns.

    python benchmarks/sb3_adapter.py
    python benchmarks/sb3_adapter.py --pairs 4 --steps 8192

CartPole-v1 with 4 environments, one torch thread, from making the environments to the last update.
`learn` is the library alone; `loop` is the adapter's loop alone; `run` is a whole run by
`palaestra.runs.training.train`: folder, metrics, episodes and checkpoints on disk. All end in the
same parameters, which is checked. `again` is the library alone once more: the distance of its ratio
from 1 is the noise of the machine, which slows a run and never speeds it up; hence also the ratio
of the fastest of each. CPU seconds are those of the whole process.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

RESULTS = Path(__file__).parent / "results"

PPO: dict[str, Any] = dict(n_steps=512, batch_size=64, n_epochs=10)
NUM_ENVS = 4

Parameters = dict[str, np.ndarray]

LINES: list[str] = []
"""What was printed, for the raw output."""


def say(line: str) -> None:
    print(line, flush=True)
    LINES.append(line)


def learn(steps: int, seed: int) -> Parameters:
    """Train with Stable-Baselines3 alone."""
    import stable_baselines3
    from stable_baselines3.common.env_util import make_vec_env

    envs = make_vec_env("CartPole-v1", n_envs=NUM_ENVS, seed=seed)
    algorithm = stable_baselines3.PPO("MlpPolicy", envs, seed=seed, device="cpu", **PPO)
    algorithm.learn(steps)
    return {name: x.detach().numpy() for name, x in algorithm.policy.named_parameters()}


def loop(steps: int, seed: int) -> Parameters:
    """Train with the adapter's loop alone."""
    from palaestra.runs.training.train import build_loop

    rounds = build_loop(configuration(steps, seed))
    done = 0
    while done < steps:
        done += rounds.advance().agent_steps
    rounds.close()
    return rounds.weights()


def run(steps: int, seed: int) -> Parameters:
    """Train a whole run and read its last checkpoint."""
    from palaestra.runs.store.checkpoints import load_checkpoint
    from palaestra.runs.training.train import train

    with tempfile.TemporaryDirectory() as root:
        folder = train(configuration(steps, seed), root=Path(root), quiet=True)
        return load_checkpoint(folder.checkpoints, only=("actor",))["actor"]


def configuration(steps: int, seed: int) -> Any:
    from palaestra.runs.config import resolve

    return resolve(
        {
            "seed": seed,
            "total_steps": steps,
            "threads": 1,
            "tensorboard": False,
            "env": {"id": "CartPole-v1", "num_envs": NUM_ENVS},
            "agent": {"name": "sb3/ppo", "device": "cpu", **PPO},
        }
    )


def timed(side: Callable[[int, int], Parameters], steps: int, seed: int) -> dict[str, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    parameters = side(steps, seed)
    return {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "parameters": parameters,
    }


def compare(steps: int, pairs: int) -> dict[str, Any]:
    """Run every side in turn for each seed, print times and ratios to `learn`."""
    sides = {"learn": learn, "loop": loop, "run": run, "again": learn}
    for side in sides.values():  # imports and first allocations are nobody's cost
        side(NUM_ENVS * PPO["n_steps"], 0)
    times: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for seed in range(pairs):
        order = list(sides)[seed % 4 :] + list(sides)[: seed % 4]
        found = {name: timed(sides[name], steps, seed) for name in order}
        bare = found["learn"].pop("parameters")
        for name in ("loop", "run", "again"):
            ours = found[name].pop("parameters")
            equal = bare.keys() == ours.keys() and all((bare[k] == ours[k]).all() for k in bare)
            if not equal:
                raise SystemExit(f"seed {seed}: {name} ended in other parameters than learn()")
        for name in sides:
            times[name].append(found[name])
            say(
                f"seed {seed} {name:<6} {found[name]['seconds']:7.2f} s  "
                f"{found[name]['cpu_seconds']:7.2f} s CPU"
            )
    return summarise(times)


def summarise(times: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    pairs = len(times["learn"])
    say(f"\n{pairs} pairs, parameters equal in all; medians, and medians of the ratios to learn")
    summary: dict[str, Any] = {}
    for name, found in times.items():
        summary[name] = {}
        for unit in ("seconds", "cpu_seconds"):
            values = [one[unit] for one in found]
            base = [one[unit] for one in times["learn"]]
            ratios = [ours / bare for ours, bare in zip(values, base, strict=True)]
            summary[name] |= {unit: values, f"{unit}_ratio": ratios}
            summary[name] |= {f"median_{unit}": statistics.median(values)}
            summary[name] |= {f"median_{unit}_ratio": statistics.median(ratios)}
        one = summary[name]
        say(
            f"  {name:<6} {one['median_seconds']:7.2f} s  {spread(one['seconds_ratio'])}   "
            f"CPU {one['median_cpu_seconds']:7.2f} s  {spread(one['cpu_seconds_ratio'])}   "
            f"of the fastest {min(one['seconds']) / min(summary['learn']['seconds']):.3f}x"
        )
    return summary


def spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.3f}x ({min(ratios):.3f}-{max(ratios):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20_480, help="agent steps of each training")
    parser.add_argument("--out", type=Path, default=RESULTS / "sb3_adapter.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    say(f"PPO on CartPole-v1, {NUM_ENVS} environments, {options.steps:,} steps, one thread")
    summary = compare(options.steps, options.pairs)
    report = {"machine": platform.processor() or platform.machine(), "steps": options.steps}
    options.out.write_text(json.dumps(report | summary, indent=1) + "\n")
    options.out.with_suffix(".txt").write_text("\n".join(LINES) + "\n")


if __name__ == "__main__":
    main()
