"""Resuming runs: what is asked for, what is refused, what the folder tells of it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file

from palaestra.errors import RunError, UserError
from palaestra.runs.cli.verbs import resume_run
from palaestra.runs.config import RunConfig, load_config
from palaestra.runs.evaluation.actors import RunActors
from palaestra.runs.store import folder as folder_module
from palaestra.runs.store import format as checkpoint_format
from palaestra.runs.store.checkpoints import Checkpoints, load_checkpoint
from palaestra.runs.store.folder import RunFolder
from palaestra.runs.store.lock import RunLock
from palaestra.runs.training.loop import RolloutLoop
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


def test_a_stopped_run_resumes_and_equals_the_straight_one(tmp_path: Path, stop_after: Any) -> None:
    run(q(), tmp_path, "straight")
    stop_after(4)
    assert run(q(), tmp_path).manifest["status"] == "stopped"
    stop_after(-1)
    folder = run(q(), tmp_path, resume="must")
    assert folder.manifest["status"] == "succeeded"
    assert [a["from_step"] for a in folder.manifest["attempts"]] == [0, 128]
    assert_same_run(tmp_path / "straight", tmp_path / "run")


def test_a_run_that_broke_resumes_from_its_last_checkpoint(tmp_path: Path, stop_after: Any) -> None:
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


def test_a_run_of_the_first_format_resumes(tmp_path: Path) -> None:
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


def test_a_run_whose_configuration_had_other_words_resumes_more_than_once(
    tmp_path: Path, stop_after: Any
) -> None:
    shutil.copytree(DATA / "version-1", tmp_path / "version-1")
    config = RunFolder.open("version-1", tmp_path).config()
    assert config.agent["optimizer"]["eps"] == 1e-5  # stored as adam_eps
    stop_after(3)
    assert run(config, tmp_path, "version-1", resume="must").manifest["status"] == "stopped"
    stop_after(-1)
    folder = run(config, tmp_path, "version-1", resume="must")
    assert folder.manifest["status"] == "succeeded"


def same_machine() -> bool:
    """Whether this is the kind of machine on which the runs of format 2 were stored."""
    stored = json.loads((DATA / "version-2" / "machine.json").read_text())
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    cpu = f"{found and found[1]} {torch.backends.cpu.get_cpu_capability()}"
    return stored == {"torch": torch.__version__, "cpu": cpu}


@pytest.mark.parametrize("name", ["mlp", "gru"])
def test_a_run_stored_by_format_version_2_resumes_to_the_same_parameters_as_the_old_straight_run(
    tmp_path: Path, name: str
) -> None:
    stored = DATA / "version-2"
    shutil.copytree(stored / name, tmp_path / name)
    config = RunFolder.open(name, tmp_path).config()
    folder = run(config, tmp_path, name, resume="must")
    assert folder.manifest["status"] == "succeeded"
    weights = load_checkpoint(folder.checkpoints, ("actor",))["actor"]
    straight = load_file(stored / f"{name}-straight" / "actor.safetensors")
    for key, weight in weights.items():
        if same_machine():
            np.testing.assert_array_equal(weight, straight[f"/{key}"], err_msg=key)
        else:  # stored on one machine, computed on another
            np.testing.assert_allclose(
                weight, straight[f"/{key}"], rtol=1e-4, atol=1e-5, err_msg=key
            )
    assert len(weights) == len(straight)
    episodes = [
        (p / "episodes.jsonl").read_bytes() for p in (folder.path, stored / f"{name}-straight")
    ]
    assert episodes[0] == episodes[1]
    if same_machine():
        lines = untimed(folder.path)
        # Decisions were not told apart from steps then.
        for line in lines:
            assert line.pop("decisions", line["frames"]) == line["frames"]
        assert lines == untimed(stored / f"{name}-straight")


def test_a_run_of_an_older_format_can_be_extended(tmp_path: Path) -> None:
    shutil.copytree(DATA / "version-2" / "mlp", tmp_path / "mlp")
    more = RunFolder.open("mlp", tmp_path).config().model_copy(update={"total_steps": 352})
    with pytest.raises(UserError, match="total_steps: 320 -> 352"):
        run(more, tmp_path, "mlp", resume="must")
    folder = run(more, tmp_path, "mlp", resume="must", override_config=True)
    assert folder.manifest["agent_steps"] == 352
    assert folder.config() == folder.trained_config() == more
    assert run(more, tmp_path, "mlp", resume="must").manifest["status"] == "succeeded"


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
    with pytest.warns(UserWarning, match="continues from the older"):
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
    write, count = checkpoint_format._write, 0

    def full(path: Path, content: bytes) -> None:
        nonlocal count
        count += 1
        if count > 20:
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
def test_a_signal_saves_and_says_how_to_resume(tmp_path: Path, number: int) -> None:
    options = ["threads=1", "tensorboard=false", "evaluation=null", "env.num_envs=4", "log_every=1"]
    command = [sys.executable, "-m", "palaestra", "train", "tictactoe", "--run-id", "run"]
    for option in [*options, "total_steps=100000000"]:
        command += ["-o", option]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "runs" / "run" / "metrics.jsonl"
    while process.poll() is None and not metrics.exists():
        time.sleep(0.05)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "the checkpoint is saved. Resume with: palaestra resume run" in told
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


def edit(folder: RunFolder, **values: Any) -> None:
    """Change config.yaml by hand."""
    path = folder.path / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values))


def test_a_configuration_edited_by_hand_is_refused_with_its_differences_until_it_is_taken(
    tmp_path: Path, stop_after: Any
) -> None:
    stop_after(4)
    folder = run(q(), tmp_path)
    edit(folder, total_steps=640, seed=3, tensorboard=True)
    stop_after(-1)
    for _ in range(2):  # not only the first time
        edited = RunFolder.open("run", tmp_path).config()
        with pytest.raises(
            UserError, match=r"changed since\):\n  seed: 0 -> 3\n  total_steps: 320"
        ):
            run(edited, tmp_path, resume="must")
        with pytest.raises(UserError, match=r"changed since the run.*\n  seed: 0 -> 3\n  total_st"):
            resume_run(str(folder.path), [], True)
    folder = run(edited, tmp_path, resume="must", override_config=True)
    assert folder.manifest["status"] == "succeeded"
    assert folder.manifest["config_changes"][0]["differences"][0] == "seed: 0 -> 3"
    run(edited, tmp_path, resume="must")
    with pytest.raises(UserError, match="seed: 3 -> 0"):
        run(q("total_steps=640"), tmp_path, resume="must")


def test_checkpoints_that_are_gone_are_asked_for_and_nothing_is_cut(
    tmp_path: Path, stop_after: Any
) -> None:
    run(q(), tmp_path, "straight")
    stop_after(4, KeyboardInterrupt())  # as a kill: no checkpoint at its end
    with pytest.raises(KeyboardInterrupt):
        run(q("checkpoint.every=64"), tmp_path)
    stop_after(-1)
    folder = RunFolder.open("run", tmp_path)
    assert folder.manifest["checkpoint_step"] == 64
    before = {p.name: p.read_bytes() for p in folder.path.iterdir() if p.is_file()}
    folder.checkpoints.rename(tmp_path / "unmounted")
    for _ in range(2):
        with pytest.raises(
            UserError, match=r"checkpoints: no checkpoint here, but .* step 64\. Put"
        ):
            run(q("checkpoint.every=64"), tmp_path, resume="must")
        folder.checkpoints.mkdir(exist_ok=True)  # empty is as bad as gone
    after = {p.name: p.read_bytes() for p in folder.path.iterdir() if p.is_file()}
    assert before == after
    folder.checkpoints.rmdir()
    (tmp_path / "unmounted").rename(folder.checkpoints)
    run(q("checkpoint.every=64"), tmp_path, resume="must")
    assert untimed(tmp_path / "straight") == untimed(tmp_path / "run")


def test_what_is_missing_at_the_end_is_computed_again_with_a_warning(
    tmp_path: Path, stop_after: Any
) -> None:
    run(q(), tmp_path, "straight")
    stop_after(7)
    folder = run(q(), tmp_path)
    shutil.rmtree(sorted(folder.checkpoints.glob("step-*"))[-1])
    stop_after(-1)
    with pytest.warns(UserWarning, match=r"newest checkpoint is step-0*192, but .* step 224"):
        run(q(), tmp_path, resume="must")
    assert_same_run(tmp_path / "straight", tmp_path / "run")


def test_other_software_than_before_is_named_and_kept_for_each_attempt(
    tmp_path: Path, stop_after: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(4)
    folder = run(q(), tmp_path)
    before = folder_module._versions()
    assert folder.manifest["attempts"][0]["versions"] == before
    now = before | {"python": "3.99", "packages": {**before["packages"], "torch": "9.9"}}
    monkeypatch.setattr(folder_module, "_versions", lambda: now)
    with pytest.warns(UserWarning, match=r"bit for bit: python 3.* -> 3\.99; torch 2.* -> 9\.9"):
        folder = run(q(), tmp_path, resume="must")
    assert [a["versions"]["python"] for a in folder.manifest["attempts"]] == [
        before["python"],
        "3.99",
    ]
    assert folder.manifest["packages"]["torch"] == "9.9"


def test_the_same_software_is_no_reason_to_warn(tmp_path: Path, stop_after: Any) -> None:
    stop_after(4)
    run(q(), tmp_path)
    stop_after(-1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(q(), tmp_path, resume="must").manifest["status"] == "succeeded"


def test_a_copied_run_gets_an_id_of_its_own_and_says_so(tmp_path: Path, stop_after: Any) -> None:
    run(q(), tmp_path, "straight")
    stop_after(4)
    folder = run(q(), tmp_path)
    shutil.copytree(folder.path, tmp_path / "copy")
    stop_after(-1)
    with pytest.warns(UserWarning, match="is a copy of the run 'run'.*run id is 'copy'"):
        copy = run(q(), tmp_path, "copy", resume="must")
    assert copy.manifest["run_id"] == "copy"
    assert copy.manifest["copied_from"] == ["run"]
    assert_same_run(tmp_path / "straight", tmp_path / "copy")
    run(q(), tmp_path, resume="must")
    assert_same_run(tmp_path / "straight", tmp_path / "run")


MINUTES = ["checkpoint.keep_every=2", "checkpoint.best=rollout/length", "checkpoint.every=64"]


def test_checkpoints_by_time_change_nothing_of_what_is_kept(tmp_path: Path) -> None:
    kept = []
    for run_id, minutes in (("without", "null"), ("with", "1e-9")):
        settings = [*MINUTES, "checkpoint.keep_last=1", f"checkpoint.minutes={minutes}"]
        folder = run(q(*settings, "total_steps=1000"), tmp_path, run_id)
        kept.append((Checkpoints(folder.checkpoints).names(), Checkpoints(folder.checkpoints).best))
    assert kept[0] == kept[1]
    assert {128, 256, 384, 512} <= {int(name[5:]) for name in kept[0][0]}
    assert_same_run(tmp_path / "without", tmp_path / "with")


@pytest.mark.parametrize("rounds", [3, 4, 5])
def test_an_interruption_changes_nothing_of_what_is_kept(
    tmp_path: Path, stop_after: Any, rounds: int
) -> None:
    settings = [*MINUTES, "checkpoint.keep_last=1", "total_steps=640"]
    stop_after(rounds)
    run(q(*settings), tmp_path)
    stop_after(-1)
    kept = []
    for run_id, resume in (("straight", "never"), ("run", "must")):
        store = Checkpoints(run(q(*settings), tmp_path, run_id, resume=resume).checkpoints)
        kept.append((store.names(), store.best))
    assert kept[0] == kept[1]
    assert_same_run(tmp_path / "straight", tmp_path / "run")


def constant(text: str) -> float:
    raise AssertionError(f"{text} is not JSON")


def test_numbers_that_are_not_finite_never_reach_the_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = RolloutLoop.advance
    odd = [np.float32("nan"), float("inf"), np.float64("-inf"), torch.tensor(float("nan"))]

    def broken(self: RolloutLoop) -> Any:
        done = advance(self)
        done.metrics = {**done.metrics, **{f"train/{i}": x for i, x in enumerate(odd)}}
        if len(done.episodes.env):
            done.episodes.returns = np.where(done.episodes.env == 0, np.inf, np.nan)
            done.episodes.sums["other"] = np.full(len(done.episodes.env), 1.5)
        return done

    monkeypatch.setattr(RolloutLoop, "advance", broken)
    folder = run(q(), tmp_path)
    for name in ("metrics.jsonl", "episodes.jsonl"):
        lines = (folder.path / name).read_text().splitlines()
        read = [json.loads(line, parse_constant=constant) for line in lines]
        assert read
    assert all(x is None for x in read[0]["return"])
    assert read[0]["other"][0] == 1.5
    metrics = json.loads((folder.path / "metrics.jsonl").read_text().splitlines()[-1])
    assert not {"train/0", "train/1", "train/2", "train/3"} & metrics.keys()


def test_weights_that_are_not_finite_end_the_run_at_its_last_good_checkpoint(
    tmp_path: Path, stop_after: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = RolloutLoop.weights

    def broken(self: RolloutLoop) -> Any:
        found = weights(self)
        if self.updates > 5:
            found["q"][0] = np.nan
        return found

    monkeypatch.setattr(RolloutLoop, "weights", broken)
    with (
        pytest.warns(UserWarning, match="not finite"),
        pytest.raises(RunError, match="weight 'q' is not finite at step 192"),
    ):
        run(q(), tmp_path)
    folder = RunFolder.open("run", tmp_path)
    assert folder.manifest["status"] == "failed"
    assert Checkpoints(folder.checkpoints).names()[-1] == "step-000000000160"


def test_plugins_of_a_run_from_elsewhere_are_imported_only_if_they_are_allowed_by_name(
    tmp_path: Path, stop_after: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "my_plugin_here.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('imported').touch()\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    imported = tmp_path / "site" / "imported"
    stop_after(4)
    folder = run(q("plugins=[my_plugin_here]"), tmp_path)
    assert folder.config().plugins == ("my_plugin_here",)
    assert RunFolder.open("run", tmp_path).config().plugins == ("my_plugin_here",)
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree(folder.path, tmp_path / "elsewhere" / "run")
    del sys.modules["my_plugin_here"]
    imported.unlink()
    foreign = tmp_path / "elsewhere" / "run"
    ask = r"runs its code\. .*--allow-plugin my_plugin_here"
    for action in (
        lambda: RunFolder.open(foreign).config(),
        lambda: resume_run(str(foreign), [], True),
        lambda: RunActors(RunFolder.open(foreign)),
    ):
        with pytest.raises(UserError, match=ask):
            action()
    with pytest.raises(UserError, match=ask):
        RunFolder.open(foreign, allow_plugins=["another"]).config()
    assert not imported.exists()
    stop_after(-1)
    allowed = RunFolder.open(foreign, allow_plugins=["my_plugin_here"])
    assert run(allowed.config(), foreign.parent, resume="must").manifest["status"] == "succeeded"
    assert imported.exists()
    RunFolder.open(foreign).config()  # by training with it the user has made it his own


@pytest.mark.parametrize("where", ["config.yaml", "manifest.json"])
def test_a_plugin_that_was_added_to_a_run_by_somebody_else_is_not_imported(
    tmp_path: Path, stop_after: Any, where: str
) -> None:
    stop_after(4)
    folder = run(q(), tmp_path)
    if where == "config.yaml":
        edit(folder, plugins=["antigravity"])
    else:
        folder.update_manifest(config=folder.manifest["config"] | {"plugins": ["antigravity"]})
    with pytest.raises(UserError, match=f"{where}: plugins: .*--allow-plugin antigravity"):
        resume_run(str(folder.path), [], True)
    assert "antigravity" not in sys.modules


def test_a_hostile_checkpoint_truncates_nothing_outside_of_its_folder(
    tmp_path: Path, stop_after: Any
) -> None:
    stop_after(4)
    folder = run(q(), tmp_path / "runs")
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    store = Checkpoints(folder.checkpoints)
    state = store.read()
    for logs, message in (
        ({"../../victim.txt": 0}, r"log '\.\./\.\./victim\.txt'; accepted: metrics"),
        ({str(victim): 0}, "accepted: metrics"),
        ({"log.txt": 0}, "accepted: metrics"),
        ({"metrics.jsonl": -1}, "-1 is not a length"),
        ({"metrics.jsonl": "0"}, "'0' is not a length"),
    ):
        state["run"]["logs"] = logs
        store.save(200, state, {"config_hash": folder.manifest["config_hash"]})
        with pytest.raises(UserError, match=message):
            run(q(), folder.path.parent, resume="must")
        shutil.rmtree(folder.checkpoints / "step-000000000200")
        store = Checkpoints(folder.checkpoints)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "episodes.jsonl", "log.txt", "lock", "manifest.json", "config.yaml"]
)
def test_links_that_lead_out_of_a_run_folder_are_refused(
    tmp_path: Path, stop_after: Any, name: str
) -> None:
    stop_after(4)
    folder = run(q(), tmp_path / "runs")
    victim = tmp_path / "victim.txt"
    path = folder.path / name
    victim.write_bytes(path.read_bytes() if path.exists() else b"precious")
    before = victim.read_bytes()
    path.unlink(missing_ok=True)
    path.symlink_to(victim)
    with pytest.raises(UserError, match=f"{name}: a symbolic link"):
        run(q(), folder.path.parent, resume="must")
    assert victim.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, stop_after: Any) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/run: the run folder cannot be made: .*Not a dir"):
        run(q(), tmp_path / "file")
    stop_after(4)
    folder = run(q(), tmp_path)
    (folder.path / "lock").unlink()
    (folder.path / "lock").mkdir()
    with pytest.raises(UserError, match=rf"run folder {folder.path} cannot be written: "):
        run(q(), tmp_path, resume="must")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": None}, r"manifest\.json: .* status is None; str is expected"),
        ({"status": "odd"}, "status: 'odd' is not accepted: created, running"),
        ({"attempts": {}}, r"attempts is \{\}; list is expected"),
        ({"attempts": [3]}, "attempts: 3: a mapping with n"),
        ({"run_id": 3}, "run_id is 3; str is expected"),
        ({"failures": 3}, "failures is 3; list is expected"),
        ({"config_hash": None}, "config_hash is None"),
        ({"packages": [1]}, r"packages is \[1\]; dict is expected"),
        ({"schema_version": "1"}, "schema_version is '1'; int is expected"),
        ({"schema_version": 99}, "layout version 99 is newer than 1"),
    ],
)
def test_an_odd_manifest_of_a_run_is_refused_by_the_name_of_its_field(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    folder = RunFolder.create("run", q(), tmp_path)
    folder.update_manifest(**change)
    with pytest.raises(UserError, match=message):
        run(q(), tmp_path, resume="must")


def test_a_field_that_a_manifest_lacks_is_named(tmp_path: Path) -> None:
    folder = RunFolder.create("run", q(), tmp_path)
    del folder.manifest["status"]
    folder.update_manifest()
    with pytest.raises(UserError, match="status is missing; str is expected"):
        RunFolder.open("run", tmp_path)
