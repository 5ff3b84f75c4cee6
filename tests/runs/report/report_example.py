"""Runs to report on: tiny real ones, and plain data for what is computed from it."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from palaestra.runs.config import load_config
from palaestra.runs.evaluation.run import evaluate_run
from palaestra.runs.report import write_report
from palaestra.runs.report.read import Evaluated, Run
from palaestra.runs.store.folder import RunFolder
from palaestra.runs.store.record import RunRecord
from palaestra.runs.training.train import train

TASK, AGENT, STEPS = "bandit/k5-normal-1", "ppo-gru", 4000
BASELINES = ("random", "epsilon-greedy", "ucb", "thompson-gauss")
PLACE = f"bandit-{STEPS}"
"""The folder of the evaluation."""


def write_run(root: Path, seed: int = 0, experiment: str = "meta-bandit") -> Path:
    """Put a finished, evaluated run into a folder of runs; each is trained once a session."""
    real = _trained(seed, experiment)
    return shutil.copytree(real, root / real.name)


@cache
def _trained(seed: int, experiment: str) -> Path:
    config = load_config(
        "demo",
        [
            f"seed={seed}",
            f"experiment={json.dumps(experiment)}",
            *(f"total_steps={STEPS}", "env.num_envs=4", "policy.hidden_size=8"),
            *("agent.minibatch_size=200", "tensorboard=false", "evaluation.episodes=8"),
            f"evaluation.baselines=[{', '.join(BASELINES)}]",
        ],
    )
    root = Path(tempfile.mkdtemp(prefix="palaestra-report-"))
    folder = train(config, f"run-{len(experiment)}-s{seed}", root=root, quiet=True)
    assert config.evaluation is not None
    evaluate_run(folder, config.evaluation)
    # Whether the tests' own code is committed is no part of them.
    folder.update_manifest(code_version={"git_sha": "4f2a9c1d7be0", "dirty": False})
    return folder.path


def write_identity(folder: Path, run_id: str, experiment: str, seed: int) -> None:
    """Make the folder a run that has not begun."""
    overrides = [f"seed={seed}", f"experiment={experiment}"]
    made = RunFolder.create(run_id, load_config("demo", overrides), folder / "new")
    for file in made.path.iterdir():
        file.rename(folder / file.name)
    shutil.rmtree(folder / "new")


def read_run(folder: Path) -> Run:
    """Read a run for a report."""
    return RunRecord(folder).run()


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read runs for a report."""
    return [read_run(folder) for folder in folders]


def report_on(*folders: Path, out: Path | None = None) -> Path:
    """Write the report of these runs."""
    return write_report(read_runs(folders), out)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON objects, one a line."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def summary_of(folder: Path, agent: str) -> dict[str, Any]:
    """Read what was found of an agent."""
    return json.loads((folder / "eval" / PLACE / agent / "summary.json").read_text())


def write_json(path: Path, data: Any) -> None:
    """Write one JSON file, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write one JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def scored_run(seed: int, scores: Sequence[Sequence[float]]) -> Run:
    """Return plain data of a run from the scores of each task's evaluation seeds."""
    tasks = [
        {"id": f"made/{i}", "env_id": "Made-v0", "episodes": 1, "score": estimate(row)}
        for i, row in enumerate(scores)
    ]
    figures = estimate([x for row in scores for x in row])
    summary = {
        "agent": AGENT,
        "mode": "greedy",
        "seeds": list(range(len(scores[0]))),
        "intervals": {"over": "seeds"},
        "aggregate": {name: {"value": figures[name]} for name in ("iqm", "mean")},
        "tasks": tasks,
    }
    evaluated = [Evaluated("made", STEPS, AGENT, summary)]
    config = {"seed": seed, "experiment": "made"}
    return Run(f"made-s{seed}", config, {}, evaluated=evaluated, agent=AGENT, status="succeeded")


def estimate(by_seed: Sequence[float]) -> dict[str, Any]:
    """Return mean and IQM of seeds as a summary holds them, without intervals."""
    mean = float(np.mean(by_seed))
    return {"mean": mean, "iqm": mean, "by_seed": list(by_seed)}


def game_record() -> dict[str, Any]:
    """Return a Tic-tac-toe game in which the agent, moving first, wins along the top row."""
    return {
        "seed": 0,
        "episode": 0,
        "actions": [0, 1, 2],
        "rewards": [0.0, 0.0, 1.0],
        "boards": [
            [0, 0, 0, 0, 0, 0, 0, 0, 0],
            [1, 0, 0, 0, 2, 0, 0, 0, 0],
            [1, 1, 0, 0, 2, 0, 0, 2, 0],
            [1, 1, 1, 0, 2, 0, 0, 2, 0],
        ],
    }
