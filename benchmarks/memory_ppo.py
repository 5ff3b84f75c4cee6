"""Every memory on one task of memory, and how fast it trains.

    python benchmarks/memory_ppo.py                                # learning, what is not done yet
    python benchmarks/memory_ppo.py --backbones rat,mesa --seeds 1
    python benchmarks/memory_ppo.py --part speed

learning: PPO on Recall with a gap of 64, for every backbone with the setting of memory_ppo.yaml
and the options of `BACKBONES`, to the end of the budget. The greedy success is then measured on
fresh episodes of the task memory/recall-64. "Steps to 95 %" are those after which five updates in a
row had 95 % right answers in training. A run that is in the raw file with the configuration of
today is not done again, so that the table can be filled in pieces. By hand:

    palaestra train benchmarks/memory_ppo.yaml -o policy='{name: gru, hidden_size: 32}'

speed: whole PPO training, see memory_speed.py.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from palaestra.envs.suites import MEMORY
from palaestra.runs.config import RunConfig, config_hash, load_config
from palaestra.runs.evaluation.actors import RunActors
from palaestra.runs.evaluation.evaluate import evaluate
from palaestra.runs.training.train import train

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SETTING = HERE / "memory_ppo.yaml"
TASK = "memory/recall-64"
CHANCE, SOLVED = 0.25, 0.95
EPISODES = 1024
"""Greedy episodes for each run."""
IN_TURN = 5
"""Updates in a row whose mean return, sampled, has to reach 95 %."""
RUN = "run"

_STACK: dict[str, Any] = {"width": 32, "heads": 4, "layers": 1}

BACKBONES: dict[str, dict[str, Any]] = {
    "mlp": {"hidden_sizes": [64, 64]},
    "gru": {"hidden_size": 32, "horizon": 66},
    "lstm": {"hidden_size": 32, "horizon": 66},
    "attention": {**_STACK, "context": 66},
    # A window shorter than the gap, in one block, would not reach the cue.
    "sliding-attention": {**_STACK, "window": 66},
    # Two queries and keys are shared by all heads: with two heads each has its own.
    "rat": {**_STACK, "heads": 2},
    # Local attention below, RAT above it: two blocks are the least.
    "rat-swa": {**_STACK, "heads": 2, "layers": 2},
    "mesa": _STACK,
    # The default forgets half within 16 steps, while gates are at 1/2.
    "gla": {**_STACK, "gate_temperature": 64},
    "deltanet": _STACK,
    "gated-deltanet": _STACK,
}
"""Policy options of each backbone."""

AGENTS: dict[str, list[str]] = {
    # At the setting's rate of 3e-3 it solves the task, and then loses it at a leap of the gradient.
    "gla": ["agent.learning_rate=1.5e-3"],
}
"""Options of PPO that differ from the setting."""

Run = dict[str, Any]


def configure(backbone: str, seed: int, budget: int | None) -> RunConfig:
    """Return the configuration of one run."""
    policy = {"name": backbone, **BACKBONES[backbone]}
    differing = AGENTS.get(backbone, [])
    return load_config(str(SETTING), differing, seed=seed, total_steps=budget, policy=policy)


def learn(backbone: str, config: RunConfig) -> Run:
    """Train and evaluate one run."""
    with TemporaryDirectory() as root:
        begin, begin_cpu = time.perf_counter(), time.process_time()
        folder = train(config, RUN, root=Path(root), resume="never", quiet=True)
        if folder.manifest["status"] != "succeeded":
            raise SystemExit("stopped: this run is not kept")
        wall, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
        lines = map(json.loads, (folder.path / "metrics.jsonl").read_text().splitlines())
        curve = [(line["agent_steps"], line["rollout/return"]) for line in lines]
        actors = RunActors(folder)
        found = evaluate(
            actors,
            MEMORY,
            seeds=[config.seed],
            episodes=EPISODES,
            mode="greedy",
            tasks=[TASK],
            repetitions=1000,
        )
    return {
        "backbone": backbone,
        "seed": config.seed,
        "config": config_hash(config),
        "policy": config.policy,
        "parameters": sum(weight.size for weight in actors.weights.values()),
        "success": found.tasks[0].metrics["return"].mean.value,
        "steps_to_solved": steps_to_solved(curve),
        "steps": curve[-1][0],
        "seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
        "curve": curve,
    }


def steps_to_solved(curve: Sequence[tuple[int, float]]) -> int | None:
    """Return the agent steps after which the training return stayed at 95 % for some updates."""
    in_turn = 0
    for steps, value in curve:
        in_turn = in_turn + 1 if value >= SOLVED else 0
        if in_turn == IN_TURN:
            return steps
    return None


def stored(path: Path, budget: int | None) -> dict[tuple[str, int], Run]:
    """Return the runs of the raw file with today's configuration, by backbone and seed."""
    lines = path.read_text().splitlines() if path.exists() else []
    runs = {(run["backbone"], run["seed"]): run for run in map(json.loads, lines)}
    return {
        key: run
        for key, run in runs.items()
        if run["backbone"] in BACKBONES and run["config"] == config_hash(configure(*key, budget))
    }


def missing(
    backbones: Sequence[str], seeds: int, budget: int | None, path: Path
) -> list[tuple[str, RunConfig]]:
    """Return what the raw file lacks, all backbones of a seed before the next seed."""
    there = stored(path, budget)
    wanted = [(name, seed) for seed in range(seeds) for name in backbones]
    return [(key[0], configure(*key, budget)) for key in wanted if key not in there]


def run_learning(backbones: Sequence[str], seeds: int, budget: int | None, path: Path) -> None:
    """Do the missing runs, then print the table and draw the curves of all that is there."""
    for backbone, config in missing(backbones, seeds, budget, path):
        run = learn(backbone, config)
        with path.open("a") as file:
            file.write(json.dumps(run) + "\n")
        print(f"{backbone} seed {config.seed}: success {run['success']:.3f}, solved after "
              f"{_count(run['steps_to_solved'])} steps, {run['cpu_seconds']:.0f} s of CPU time",
              flush=True)  # fmt: skip
    runs = list(stored(path, budget).values())
    lines = table(runs)
    print("\n".join(lines))
    path.with_suffix(".txt").write_text("\n".join(lines) + "\n")
    draw(runs, path.with_suffix(".png"))


def table(runs: Sequence[Run]) -> list[str]:
    """Return one line for each backbone."""
    head = [
        "backbone",
        "parameters",
        "success",
        "of each seed",
        "steps to 95 %",
        "CPU s",
        "options",
    ]
    rows = [head]
    for backbone, options in BACKBONES.items():
        of = sorted((run for run in runs if run["backbone"] == backbone), key=lambda r: r["seed"])
        if not of:
            continue
        rows.append(
            [
                backbone,
                f"{of[0]['parameters']:,}",
                f"{sum(run['success'] for run in of) / len(of):.3f}",
                " ".join(f"{run['success']:.3f}" for run in of),
                " ".join(_count(run["steps_to_solved"]) for run in of),
                " ".join(f"{run['cpu_seconds']:.0f}" for run in of),
                " ".join([*(f"{k}={v}" for k, v in options.items()), *AGENTS.get(backbone, [])]),
            ]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return [
        "  ".join(x.ljust(n) for x, n in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _count(steps: int | None) -> str:
    return "never" if steps is None else f"{steps / 1e6:.2f}M"


def draw(runs: Sequence[Run], path: Path) -> None:
    """Draw the training return of every run, one panel for each backbone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [name for name in BACKBONES if any(run["backbone"] == name for run in runs)]
    columns = min(4, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(2.6 * columns, 1.9 * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    for axes, name in zip(grid.flat, names, strict=False):
        for run in runs:
            if run["backbone"] == name:
                steps, values = zip(*run["curve"], strict=True)
                axes.plot([x / 1e6 for x in steps], values, lw=1, color=f"C{run['seed']}")
        axes.axhline(CHANCE, color="#5c646e", lw=0.8, ls="--")
        axes.axhline(SOLVED, color="#5c646e", lw=0.8, ls=":")
        axes.set_title(name, fontsize=9, loc="left")
        axes.set_ylim(0, 1.03)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    figure.supxlabel("agent steps, millions", fontsize=9)
    figure.supylabel("right answers in training", fontsize=9)
    figure.suptitle(
        "Recall, gap 64: each line a seed; dashed is chance, dotted 95 %", fontsize=10, x=0.02,
        ha="left",
    )  # fmt: skip
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", choices=["learning", "speed"], default="learning")
    parser.add_argument("--backbones", default=",".join(BACKBONES), help="names with commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", type=int, help="agent steps, instead of the setting's")
    parser.add_argument("--rounds", type=int, default=5, help="of the speed part")
    parser.add_argument("--out", type=Path, help="raw file; table and picture lie beside it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.part == "speed":
        from memory_speed import run_speed

        run_speed(options.rounds, options.out or RESULTS / "memory_ppo_speed.json")
        return
    backbones = options.backbones.split(",")
    if unknown := set(backbones) - set(BACKBONES):
        parser.error(f"--backbones: {sorted(unknown)} are not among {list(BACKBONES)}")
    path = options.out or RESULTS / "memory_ppo.jsonl"
    run_learning(backbones, options.seeds, options.budget, path)


if __name__ == "__main__":
    main()
