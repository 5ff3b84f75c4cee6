"""Going on with runs: what is asked for, what is refused, what the folder tells of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palaestra.errors import RunError, UserError
from palaestra.runs.config import RunConfig, load_config
from palaestra.runs.store.checkpoints import load_checkpoint
from palaestra.runs.store.folder import RunFolder
from palaestra.runs.store.lock import RunLock
from palaestra.runs.training.train import train
from palaestra.runs.training.trainer import Trainer
from tests.runs.survival import QUICK, assert_same_run, config_of, untimed

DATA = Path(__file__).parent / "data"


def q(*overrides: str) -> RunConfig:
    return config_of("q-learning", "total_steps=320", *overrides)


def run(config: RunConfig, root: Path, run_id: str = "run", **options: Any) -> RunFolder:
    return train(config, run_id, root=root, quiet=True, **options)


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes runs stop, or break with an error, after some rounds."""
    advance = Trainer._advance

    def after(rounds: int, error: BaseException | None = None) -> None:
        def limited(self: Trainer) -> Any:
            done = advance(self)
            if self.updates == rounds:
                if error is not None:
                    raise error
                self._interrupted = True
            return done

        monkeypatch.setattr(Trainer, "_advance", limited)

    yield after
    monkeypatch.setattr(Trainer, "_advance", advance)


def test_a_stopped_run_goes_on_and_equals_the_straight_one(tmp_path: Path, stop_after: Any) -> None:
    run(q(), tmp_path, "straight")
    stop_after(4)
    assert run(q(), tmp_path).manifest["status"] == "stopped"
    stop_after(-1)
    folder = run(q(), tmp_path, resume="must")
    assert folder.manifest["status"] == "succeeded"
    assert [a["from_step"] for a in folder.manifest["attempts"]] == [0, 128]
    assert_same_run(tmp_path / "straight", tmp_path / "run")


def test_a_run_that_broke_goes_on_from_its_last_checkpoint(tmp_path: Path, stop_after: Any) -> None:
    run(q(), tmp_path, "straight")
    stop_after(4, ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        run(q(), tmp_path)
    folder = RunFolder.open("run", tmp_path)
    assert folder.manifest["status"] == "failed"
    assert folder.manifest["attempts"][-1]["reason"] == "ValueError: a bug"
    stop_after(-1)
    run(q(), tmp_path, resume="must")
    assert_same_run(tmp_path / "straight", tmp_path / "run")


def test_auto_starts_what_is_not_there_and_leaves_what_has_succeeded(tmp_path: Path) -> None:
    folder = run(q(), tmp_path, resume="auto")
    before = (folder.path / "manifest.json").read_bytes()
    run(q(), tmp_path, resume="auto")
    assert (folder.path / "manifest.json").read_bytes() == before


def test_must_refuses_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown run"):
        run(q(), tmp_path, resume="must")
    assert not list(tmp_path.iterdir())


def test_another_configuration_is_refused_with_its_differences(tmp_path: Path) -> None:
    run(q(), tmp_path)
    other = q("agent.epsilon=0.5", "agent.gamma=0.9", "checkpoint.keep_last=7")
    with pytest.raises(UserError, match=r"agent\.epsilon: 0\.1 -> 0\.5\n  agent\.gamma: .* -> 0.9"):
        run(other, tmp_path, resume="auto")


def test_a_run_can_be_extended_and_the_manifest_tells_of_it(tmp_path: Path) -> None:
    run(q("total_steps=640"), tmp_path, "straight")
    run(q(), tmp_path)
    folder = run(q("total_steps=640"), tmp_path, resume="must", override_config=True)
    assert folder.manifest["config_changes"][0]["differences"] == ["total_steps: 320 -> 640"]
    assert folder.config().total_steps == 640
    # Q-learning has no schedule, so that it is the same run; only its checkpoints differ.
    assert untimed(tmp_path / "straight")[-1] == untimed(tmp_path / "run")[-1]
    weights = [
        load_checkpoint(tmp_path / r / "checkpoints", ("actor",)) for r in ("straight", "run")
    ]
    np.testing.assert_array_equal(weights[0]["actor"]["q"], weights[1]["actor"]["q"])


def test_a_run_of_the_first_format_goes_on(tmp_path: Path) -> None:
    shutil.copytree(DATA / "version-1", tmp_path / "version-1")
    folder = RunFolder.open("version-1", tmp_path)
    config = folder.config()
    straight = run(config, tmp_path, "straight")
    folder = run(config, tmp_path, "version-1", resume="must")
    assert folder.manifest["status"] == "succeeded"
    ends = [load_checkpoint(f.checkpoints, ("actor",))["actor"] for f in (straight, folder)]
    for name, weight in ends[0].items():  # stored on one machine, computed on another
        np.testing.assert_allclose(weight, ends[1][name], rtol=1e-4, atol=1e-5, err_msg=name)
    lines = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["agent_steps"] for line in lines] == [12, 24, 36, 48]


def test_a_run_owned_by_a_live_process_is_refused(tmp_path: Path, stop_after: Any) -> None:
    stop_after(4)
    folder = run(q(), tmp_path)
    before = (folder.path / "manifest.json").read_bytes()
    with RunLock(folder.path), pytest.raises(UserError, match=f"process {os.getpid()} on"):
        run(q(), tmp_path, resume="must")
    assert (folder.path / "manifest.json").read_bytes() == before


def test_logs_that_were_cut_by_somebody_else_are_refused(tmp_path: Path, stop_after: Any) -> None:
    stop_after(4)
    folder = run(q(), tmp_path)
    (folder.path / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match=r"metrics\.jsonl: 0 bytes, but the checkpoint"):
        run(q(), tmp_path, resume="must")


def test_the_checkpoint_of_another_run_is_refused(tmp_path: Path, stop_after: Any) -> None:
    stop_after(4)
    folder = run(q(), tmp_path)
    other = run(q("agent.epsilon=0.5"), tmp_path, "other")
    shutil.rmtree(folder.checkpoints)
    shutil.copytree(other.checkpoints, folder.checkpoints)
    with pytest.raises(UserError, match=r"another run \(run id 'other'"):
        run(q(), tmp_path, resume="must")


def test_an_older_checkpoint_takes_the_place_of_a_broken_one(
    tmp_path: Path, stop_after: Any
) -> None:
    run(q(), tmp_path, "straight")
    stop_after(7)
    folder = run(q(), tmp_path)
    newest = sorted(folder.checkpoints.glob("step-*"))[-1]
    (newest / "loop.safetensors").write_bytes(b"cut")
    stop_after(-1)
    with pytest.warns(UserWarning, match="goes on from the older"):
        run(q(), tmp_path, resume="must")
    assert_same_run(tmp_path / "straight", tmp_path / "run")


def test_environments_without_a_state_are_reset_at_checkpoints(
    tmp_path: Path, stop_after: Any
) -> None:
    config = load_config(
        "cartpole",
        [
            *QUICK,
            "env={id: tests/Stateless-v0, num_envs: 3}",
            "plugins=[tests.runs.stateless_plugin]",
            "rollout.steps=5",
            "agent.minibatch_size=15",
            "total_steps=300",
            "checkpoint.every=60",
        ],
    )
    straight = run(config, tmp_path, "straight")
    assert straight.manifest["env_state"] == "reset_at_checkpoint"
    stop_after(11, RuntimeError("killed"))
    with pytest.raises(RuntimeError):
        run(config, tmp_path)
    stop_after(-1)
    run(config, tmp_path, resume="must")
    assert_same_run(tmp_path / "straight", tmp_path / "run")


def test_a_file_in_the_folder_stops_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palaestra.runs.training.trainer.LOOK_S", 0)

    def ask(folder: RunFolder, config: RunConfig, step: int) -> None:
        begin = folder.begin_attempt

        def begin_and_ask(step: int) -> None:
            begin(step)
            (folder.path / "stop-requested").touch()

        folder.begin_attempt = begin_and_ask  # type: ignore[method-assign]

    folder = run(q("total_steps=100000000"), tmp_path, begun=ask)
    assert folder.manifest["status"] == "stopped"
    assert folder.manifest["agent_steps"] < 10_000


def test_a_disk_that_fills_up_ends_the_run_and_keeps_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(q(), tmp_path, "straight")
    from palaestra.runs.store import format as checkpoint_format

    write, count = checkpoint_format._write, 0

    def full(path: Path, content: bytes) -> None:
        nonlocal count
        count += 1
        if count > 30:
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(checkpoint_format, "_write", full)
    with (
        pytest.warns(UserWarning, match="no space is left"),
        pytest.raises(RunError, match="no space is left on the disk"),
    ):
        run(q(), tmp_path)
    monkeypatch.setattr(checkpoint_format, "_write", write)
    folder = RunFolder.open("run", tmp_path)
    assert folder.manifest["status"] == "failed"
    assert list(folder.checkpoints.glob("step-*"))
    run(q(), tmp_path, resume="must")
    assert_same_run(tmp_path / "straight", tmp_path / "run")


def test_the_best_checkpoint_is_kept(tmp_path: Path) -> None:
    settings = ["checkpoint.every=32", "checkpoint.best=rollout/return", "total_steps=1600"]
    folder = run(q(*settings), tmp_path)
    by_step = {line["agent_steps"]: line for line in untimed(folder.path)}
    returns = {s: x["rollout/return"] for s, x in by_step.items() if "rollout/return" in x}
    best = int((folder.checkpoints / "best").read_text().removeprefix("step-"))
    assert returns[best] == max(returns.values())
    assert len(list(folder.checkpoints.glob("step-*"))) in (2, 3)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path: Path, number: int) -> None:
    options = ["threads=1", "tensorboard=false", "evaluation=null", "env.num_envs=4"]
    command = [sys.executable, "-m", "palaestra", "train", "tictactoe", "--run-id", "run"]
    for option in [*options, "total_steps=100000000"]:
        command += ["-o", option]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "runs" / "run" / "metrics.jsonl"
    while process.poll() is None and not metrics.exists():
        pass
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "the checkpoint is saved. Go on with: palaestra resume run" in told
    assert RunFolder.open("run", tmp_path / "runs").manifest["status"] == "stopped"
    command = [sys.executable, "-m", "palaestra", "resume", "run"]
    steps = RunFolder.open("run", tmp_path / "runs").manifest["agent_steps"]
    command += ["-o", f"total_steps={steps + 1000}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"resuming at step {steps:,}" in done.stderr
    again = subprocess.run(command[:5], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0
    assert "nothing left to do" in again.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("!!python/object/apply:os.system ['touch exploded']", "not plain YAML"),
        ("total_steps: !!python/name:os.system", "not plain YAML"),
        ("- a\n- b", "mapping of keys"),
    ],
)
def test_yaml_that_asks_for_objects_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("evil.yaml").write_text(content)
    with pytest.raises(UserError, match=message):
        load_config("evil.yaml")
    assert not Path("exploded").exists()


@pytest.mark.parametrize("run_id", ["../up", "/abs", "a/b", ".hidden", "-o", "a\nb", "x" * 201])
def test_hostile_run_ids_are_refused_and_nothing_is_written(tmp_path: Path, run_id: str) -> None:
    root = tmp_path / "runs"
    for resume in ("never", "auto", "must"):
        with pytest.raises(UserError, match=r"run id"):
            run(q(), root, run_id, resume=resume)
    assert not root.exists()
    assert [p.name for p in tmp_path.iterdir()] == []
