"""Several seeds: each as if it were trained alone, whatever happens to the others."""

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palaestra.errors import UserError
from palaestra.runs.config import RunConfig, load_config
from palaestra.runs.store.checkpoints import load_checkpoint
from palaestra.runs.store.folder import RunFolder
from palaestra.runs.store.lock import RunLock
from palaestra.runs.sweeps.progress import Pulse, line
from palaestra.runs.sweeps.seeds import seed_runs, train_seeds
from palaestra.runs.training.train import train

SETTINGS = [
    "experiment=walk",
    "plugins=[tests.runs.seeds_plugin]",
    "env.id=tests/Walk-v0",
    "env.num_envs=2",
    "rollout.steps=10",
    "agent.minibatch_size=20",
    "agent.num_epochs=1",
    "policy.hidden_size=8",
    "policy.name=gru",
    "threads=1",
    "tensorboard=false",
]
TIMES = ("t", "attempt", "time/agent_steps_per_s", "time/collect_s", "time/learn_s")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def walk(*overrides: str) -> RunConfig:
    return load_config("cartpole", [*SETTINGS, "total_steps=400", *overrides])


def metrics(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def assert_equals_straight_run(config: RunConfig, folder: Path) -> None:
    straight = train(config, "straight", root=Path(f"straight-{folder.name}"), quiet=True)
    one, other = (
        load_checkpoint(path / "checkpoints", only=("actor",))["actor"]
        for path in (straight.path, folder)
    )
    assert one.keys() == other.keys()
    for name, weights in one.items():
        np.testing.assert_array_equal(weights, other[name], err_msg=name)
    assert metrics(straight.path) == metrics(folder)


def statuses(*ids: str) -> list[str]:
    return [RunFolder.open(id).manifest["status"] for id in ids]


def test_seeds_trained_side_by_side_equal_the_same_seeds_trained_one_by_one(
    ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    config = walk("seed=3")
    assert train_seeds(config, 2, run_id="walk", as_json=True) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [(run["run_id"], run["seed"], run["status"]) for run in printed["runs"]] == [
        ("walk-s3", 3, "succeeded"),
        ("walk-s4", 4, "succeeded"),
    ]
    assert printed["report"] == "runs/report-walk.html"
    assert Path(printed["report"]).is_file()
    for run in seed_runs(config, 2, "walk"):
        assert_equals_straight_run(run.config, run.path)
    assert metrics(Path("runs/walk-s3")) != metrics(Path("runs/walk-s4"))


@pytest.mark.slow
def test_interrupted_seeds_stop_with_a_checkpoint_and_resumed_equal_straight_runs(
    ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    config = walk("total_steps=1000")
    Path("hold").touch()

    def interrupt() -> None:
        logs = [Path("runs", id, "metrics.jsonl") for id in ("walk-s0", "walk-s1")]
        while not all(log.is_file() for log in logs):
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    assert train_seeds(config, 2, run_id="walk") == 130
    assert statuses("walk-s0", "walk-s1") == ["stopped", "stopped"]
    told = capsys.readouterr().err
    assert "palaestra train runs/walk-s0/config.yaml --seeds 2 --run-id walk --resume auto" in told
    Path("hold").unlink()
    assert train_seeds(config, 2, run_id="walk", resume="auto") == 0
    for run in seed_runs(config, 2, "walk"):
        assert_equals_straight_run(run.config, run.path)
        assert len(RunFolder.open(run.path).manifest["attempts"]) == 2


def test_a_seed_that_fails_leaves_the_others_alone_and_is_told(
    ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    config = walk("env.options={fails_for: 1}")
    assert train_seeds(config, 2, run_id="walk") == 1
    assert statuses("walk-s0", "walk-s1") == ["succeeded", "failed"]
    told = capsys.readouterr()
    assert "walk-s1 failed: environment Walk: step failed in row 0 after 4 steps" in told.err
    assert "RuntimeError: the emulator has crashed" in told.err
    assert "walk-s1: the run is failed" in told.out.replace("\n", " ")
    log = Path("runs/walk-s1/log.txt").read_text()
    assert "seeds_plugin.py" in log
    assert "\x1b" not in log
    assert "the emulator has crashed" in Path("runs/report-walk.html").read_text()


@pytest.mark.slow
def test_a_seed_whose_process_is_killed_resumes_where_it_was(
    ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    config = walk("checkpoint.every=100")
    Path("hold").touch()

    def kill() -> None:
        lock = Path("runs/walk-s0/lock")
        while not list(Path("runs/walk-s0/checkpoints").glob("step-*")):
            time.sleep(0.1)
        Path("hold").unlink()
        os.kill(json.loads(lock.read_text())["pid"], signal.SIGKILL)

    threading.Thread(target=kill).start()
    assert train_seeds(config, 1, run_id="walk") == 0
    assert "its process died; start 2 resumes it" in capsys.readouterr().err
    assert RunFolder.open("walk-s0").manifest["attempts"][1]["from_step"] >= 100
    assert_equals_straight_run(config, Path("runs/walk-s0"))


@pytest.mark.slow
def test_every_seed_is_evaluated_and_the_baselines_once(
    ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_config(
        "demo",
        [
            *("total_steps=800", "env.num_envs=8", "policy.hidden_size=8", "tensorboard=false"),
            *("agent.minibatch_size=400", "evaluation.seeds=2", "evaluation.episodes=2"),
            "evaluation.baselines=[random]",
        ],
    )
    assert train_seeds(config, 2) == 0
    ids = [run.run_id for run in seed_runs(config, 2)]
    assert ids[0].startswith("demo-gaussianbandit-v0-ppo-gru-s0-")
    agents = [sorted(p.name for p in Path("runs", id).glob("eval/*/*")) for id in ids]
    assert agents == [["ppo-gru", "random"], ["ppo-gru"]]
    told = capsys.readouterr()
    assert "2 training seeds" in told.out
    assert "fewer than 5" in told.out
    before = Path("runs", ids[0], "manifest.json").read_text()
    assert train_seeds(config, 2, resume="auto") == 0
    assert Path("runs", ids[0], "manifest.json").read_text() == before


def test_nothing_starts_where_one_of_the_runs_exists() -> None:
    config = walk()
    RunFolder.create("walk-s1", seed_runs(config, 2, "walk")[1].config)
    with pytest.raises(UserError, match="'walk-s1' exists"):
        train_seeds(config, 2, run_id="walk")
    assert not Path("runs/walk-s0").exists()


def test_options_that_cannot_work_are_refused_before_anything_starts(ray_cluster: None) -> None:
    with pytest.raises(UserError, match="height: unknown option"):
        train_seeds(walk("env.options={height: 1}"), 2)
    with pytest.raises(UserError, match="--workers 0"):
        train_seeds(walk("rollout.workers=2"), 2)
    with pytest.raises(UserError, match="--seeds: 0"):
        train_seeds(walk(), 0)
    with pytest.raises(UserError, match="threads: 999"):
        train_seeds(walk("threads=999"), 2)
    with pytest.raises(UserError, match="walk-s0"):
        train_seeds(walk(), 2, run_id="walk", resume="must")
    assert not Path("runs").exists()


def test_progress_is_read_from_whole_lines_and_starts_again_where_the_file_was_cut() -> None:
    (run,) = seed_runs(walk(), 1, "walk")
    folder = RunFolder.create(run.run_id, run.config)
    folder.begin_attempt(0)
    pulse, path = Pulse(run), run.path / "metrics.jsonl"
    pulse.update()
    assert (pulse.steps, pulse.words) == (0, "killed")  # no process holds it
    lock = RunLock(run.path).acquire()
    pulse.update()
    assert (pulse.steps, pulse.words) == (0, "starting")
    for steps in (100, 200, 300):
        folder.write_metrics(
            {"agent_steps": steps, "time/agent_steps_per_s": 50, "rollout/return": 1.5}
        )
    with path.open("a") as file:
        file.write('{"agent_steps": 4')
    pulse.update()
    assert (pulse.steps, pulse.rate) == (300, 50)
    assert line(pulse) == "seed 0: 300/400 agent steps, 50/s, 2.0 s left, return 1.50"
    path.write_text(path.read_text().partition("\n")[0] + "\n")
    pulse.update()
    assert pulse.steps == 100
    folder.end_attempt("stopped")
    lock.release()
    pulse.update()
    assert pulse.words == "stopped"
