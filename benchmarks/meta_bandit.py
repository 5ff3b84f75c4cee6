"""Memory that learns to explore: trained policies and UCB on the same bandits.

    python benchmarks/meta_bandit.py                              # what is not done yet
    python benchmarks/meta_bandit.py --backbones rat --arms 5 --seeds 1
    python benchmarks/meta_bandit.py --budget 2000000 --out try.jsonl

PPO trains each backbone on Gaussian bandits of 50 pulls, means N(0, 1), noise 1, from the raw
history (RL^2, arXiv 1611.02779), with the setting of the preset `meta-bandit` and the options of
`BACKBONES`. Afterwards it and the rules play the same 10,000 fresh instances with the same
rewards; the policy samples, as in training. A run that is in the raw file with the same
configuration is not done again, so that the table can be filled in pieces.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from palaestra.envs.suites import MEMORY
from palaestra.runs.config import RunConfig, config_hash, load_config
from palaestra.runs.evaluation.actors import RunActors
from palaestra.runs.evaluation.evaluate import Factory, baseline, evaluate
from palaestra.runs.training.train import train

RESULTS = Path(__file__).parent / "results" / "meta_bandit.jsonl"
SEEDS, EPISODES = 10, 1000
RULES = ("random", "thompson-gauss", "try-all-greedy", "ucb")

BACKBONES: dict[str, dict[str, Any]] = {
    "gru": {"hidden_size": 64},
    "rat": {"width": 64, "heads": 2, "layers": 1},
    "mesa": {"width": 64, "heads": 4, "layers": 1},
}
"""Policy options of each backbone."""

STEPS: dict[str, dict[int, int]] = {
    "gru": {5: 110_000_000, 20: 40_000_000},
    "rat": {5: 16_000_000, 20: 9_000_000},
    "mesa": {5: 8_000_000, 20: 4_000_000},
}
"""Agent steps of a run, by the number of arms."""

Run = dict[str, Any]


def configure(arms: int, backbone: str, seed: int, budget: int | None) -> RunConfig:
    """Return the configuration of one run."""
    return load_config(
        "meta-bandit",
        seed=seed,
        total_steps=budget or STEPS[backbone][arms],
        env__options__K=arms,
        policy={"name": backbone, **BACKBONES[backbone]},
        tensorboard=False,
    )


def regrets(actors: Factory, arms: int) -> np.ndarray:
    """Return the regret of each episode, `[SEEDS * EPISODES]`."""
    found = evaluate(
        actors,
        MEMORY,
        seeds=SEEDS,
        episodes=EPISODES,
        mode="sample",
        tasks=[f"memory/bandit-{arms}"],
        repetitions=1,
    )
    return np.array([row["regret"] for row in found.tasks[0].rows])


def learn(arms: int, backbone: str, config: RunConfig) -> Run:
    """Train one policy and compare it with the rules, episode by episode."""
    with TemporaryDirectory() as root:
        begin = time.process_time()
        folder = train(config, root=Path(root), quiet=True)
        cpu = time.process_time() - begin
        lines = [json.loads(x) for x in (folder.path / "metrics.jsonl").read_text().splitlines()]
        own = regrets(RunActors(folder), arms)
    by_rule = {name: regrets(baseline(name), arms) for name in RULES}
    above = own - by_rule["ucb"]
    return {
        "arms": arms,
        "backbone": backbone,
        "seed": config.seed,
        "config": config_hash(config),
        "policy": config.policy,
        "regret": own.mean(),
        "standard_error": own.std() / len(own) ** 0.5,
        "above_ucb": above.mean(),
        "above_ucb_standard_error": above.std() / len(above) ** 0.5,
        "rules": {name: values.mean() for name, values in by_rule.items()},
        "steps": lines[-1]["agent_steps"],
        "cpu_seconds": round(cpu, 1),
        "curve": [
            (line["agent_steps"], line["rollout/regret"])
            for line in lines
            if "rollout/regret" in line
        ],
    }


def stored(path: Path) -> dict[tuple[int, str, int], Run]:
    """Return the runs of the raw file by arms, backbone and seed; the last one of each counts."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {(run["arms"], run["backbone"], run["seed"]): run for run in map(json.loads, lines)}


def table(runs: Sequence[Run]) -> list[str]:
    """Return one line for each run; the figures in brackets are twice the standard error."""
    lines = ["arms  backbone  seed  steps    CPU s   regret         minus UCB, paired  rules"]
    for run in sorted(runs, key=lambda run: (run["arms"], run["backbone"], run["seed"])):
        rules = ", ".join(f"{name} {value:.2f}" for name, value in run["rules"].items())
        lines.append(
            f"{run['arms']:<6}{run['backbone']:<10}{run['seed']:<6}{run['steps'] / 1e6:<5.1f}M  "
            f"{run['cpu_seconds']:<8.0f}{run['regret']:<6.2f} ({2 * run['standard_error']:.2f})  "
            f" {run['above_ucb']:<+6.2f} ({2 * run['above_ucb_standard_error']:.2f})      {rules}"
        )
    return lines


def draw(runs: Sequence[Run], path: Path) -> None:
    """Draw the regret in training, one panel for each number of arms, UCB as a line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    numbers, names = sorted({run["arms"] for run in runs}), list(BACKBONES)
    figure = Figure(figsize=(4 * len(numbers), 3), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, arms in zip(
        figure.subplots(1, len(numbers), squeeze=False).flat, numbers, strict=True
    ):
        of = [run for run in runs if run["arms"] == arms]
        for run in of:
            steps, values = zip(*run["curve"], strict=True)
            color = f"C{names.index(run['backbone'])}"
            label = run["backbone"] if run["seed"] == 0 else None
            axes.plot([x / 1e6 for x in steps], values, lw=1, color=color, label=label)
        axes.axhline(of[0]["rules"]["ucb"], color="#5c646e", lw=0.8, ls="--", label="UCB")
        axes.set_title(f"{arms} arms", fontsize=10, loc="left")
        axes.set_ylim(0, 2.5 * of[0]["rules"]["ucb"])
        axes.set_xlabel("agent steps, millions", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.legend(frameon=False, fontsize=8)
    figure.supylabel("regret of 50 pulls in training", fontsize=9)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbones", default="rat,mesa", help=f"of {', '.join(BACKBONES)}")
    parser.add_argument("--arms", type=int, nargs="+", default=[5, 20], choices=[5, 20])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--budget", type=int, help="agent steps, instead of `STEPS`")
    parser.add_argument("--out", type=Path, default=RESULTS, help="raw file; table, picture beside")
    options = parser.parse_args()
    torch.set_num_threads(1)
    backbones = options.backbones.split(",")
    if unknown := set(backbones) - set(BACKBONES):
        parser.error(f"--backbones: {sorted(unknown)} are not among {list(BACKBONES)}")
    for seed in range(options.seeds):
        for arms in options.arms:
            for backbone in backbones:
                config = configure(arms, backbone, seed, options.budget)
                before = stored(options.out).get((arms, backbone, seed))
                if before is not None and before["config"] == config_hash(config):
                    continue
                with options.out.open("a") as file:
                    file.write(json.dumps(learn(arms, backbone, config)) + "\n")
    runs = list(stored(options.out).values())
    lines = table(runs)
    print("\n".join(lines))
    options.out.with_suffix(".txt").write_text("\n".join(lines) + "\n")
    draw(runs, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
