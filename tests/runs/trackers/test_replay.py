"""A tracker holds exactly what the run folder holds, however often and whenever it was filled."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tracker_cases import MakeRun, curves, line
from tracker_readers import READERS

from palaestra.errors import RunError, UserError
from palaestra.runs.store.folder import RunFolder
from palaestra.runs.store.lock import RunLock
from palaestra.runs.store.record import RunRecord
from palaestra.runs.trackers import TRACKERS, check_trackers, open_trackers, replay
from palaestra.runs.trackers.base import Tracker

LINES = [line(step) for step in range(0, 600, 10)]


def assert_holds(name: str, folder: RunFolder, lines: list[dict[str, Any]]) -> None:
    # TensorBoard stores 32 bits, whose rounding is half of 2**-23.
    found, wanted = READERS[name](folder), curves(lines)
    assert found.keys() == wanted.keys()
    for metric, points in wanted.items():
        assert [step for step, _ in found[metric]] == [step for step, _ in points]
        values = [value for _, value in found[metric]]
        precision = 2.0**-23 if name == "tensorboard" else 0.0
        assert values == pytest.approx([value for _, value in points], rel=precision, abs=0)


@pytest.mark.parametrize("name", TRACKERS)
def test_a_replay_gives_exactly_the_values_of_the_file(name: str, make_run: MakeRun) -> None:
    folder = make_run(LINES)
    replay(RunRecord(folder.path), [name])
    assert_holds(name, folder, LINES)


@pytest.mark.parametrize("name", TRACKERS)
def test_replaying_twice_is_replaying_once(name: str, make_run: MakeRun) -> None:
    folder = make_run(LINES)
    replay(RunRecord(folder.path), [name])
    replay(RunRecord(folder.path), [name])
    assert_holds(name, folder, LINES)


@pytest.mark.parametrize("name", TRACKERS)
def test_logging_while_training_equals_a_replay(name: str, make_run: MakeRun) -> None:
    folder = make_run([])
    (tracker,) = open_trackers([name], RunRecord(folder.path))
    for row in LINES:
        folder.write_metrics(row)
        tracker.log(row, row["agent_steps"])
    folder.end_attempt("succeeded")
    tracker.close()
    live = READERS[name](folder)
    replay(RunRecord(folder.path), [name])
    assert READERS[name](folder) == live
    assert_holds(name, folder, LINES)


@pytest.mark.parametrize("name", TRACKERS)
def test_after_a_resume_no_step_is_missing_or_twice(name: str, make_run: MakeRun) -> None:
    folder = make_run([])
    (tracker,) = open_trackers([name], RunRecord(folder.path))
    lengths = {}
    for row in LINES[:40]:
        folder.write_metrics(row)
        tracker.log(row, row["agent_steps"])
        if row is LINES[24]:
            lengths = folder.log_lengths()
    # A killed process closes nothing; here a service or a thread that still writes has to end.
    if name in ("wandb", "tensorboard"):
        tracker.close()
    folder.cut_logs(lengths)
    folder.begin_attempt(250)
    (tracker,) = open_trackers([name], RunRecord(folder.path))
    second = [line(step, attempt=2) for step in range(250, 500, 10)]
    for row in second:
        folder.write_metrics(row)
        tracker.log(row, row["agent_steps"])
    folder.end_attempt("succeeded")
    tracker.close()
    assert_holds(name, folder, LINES[:25] + second)


@pytest.mark.parametrize("name", TRACKERS)
def test_a_line_that_was_cut_off_in_writing_is_left_out(name: str, make_run: MakeRun) -> None:
    folder = make_run(LINES[:3])
    with (folder.path / "metrics.jsonl").open("a") as file:
        file.write('{"agent_steps": 30, "rollout/ret')
    replay(RunRecord(folder.path), [name])
    assert_holds(name, folder, LINES[:3])


@pytest.mark.parametrize("name", TRACKERS)
def test_values_that_are_no_finite_numbers_are_left_out(name: str, make_run: MakeRun) -> None:
    odd = {
        "train/nan": float("nan"),
        "train/inf": float("inf"),
        "train/word": "x",
        "train/no": None,
    }
    folder = make_run([{**row, **odd, "plain": 1.0} for row in LINES[:2]])
    replay(RunRecord(folder.path), [name])
    assert_holds(name, folder, LINES[:2])


def summary(agent: str, value: float) -> str:
    estimate = {"mean": value}
    task = {
        "id": "pole/short",
        "score": estimate,
        "metrics": {"return": estimate, "gone": {"mean": None}},
    }
    aggregate = {"iqm": {"value": value}}
    return json.dumps({"agent": agent, "suite": "pole", "aggregate": aggregate, "tasks": [task]})


@pytest.mark.parametrize("name", TRACKERS)
def test_evaluations_of_the_runs_own_agent_are_in_it_at_their_step(
    name: str, make_run: MakeRun
) -> None:
    folder = make_run(LINES[:3])
    for agent, step, value in (("ppo-mlp", 20, 0.5), ("random", 20, 0.0), ("ppo-mlp", 5, 0.25)):
        place = folder.path / "eval" / f"pole-{step}" / agent
        place.mkdir(parents=True)
        (place / "summary.json").write_text(summary(agent, value))
    replay(RunRecord(folder.path), [name])
    found = READERS[name](folder)
    for metric in ("eval/pole/iqm", "eval/pole/short/score", "eval/pole/short/return"):
        assert found[metric] == [(5, 0.25), (20, 0.5)]
    assert len([metric for metric in found if metric.startswith("eval/")]) == 3


def test_an_unknown_tracker_is_answered_with_near_names() -> None:
    with pytest.raises(UserError, match=r"unknown tracker 'mlfow': did you mean 'mlflow'\?"):
        check_trackers(["tensorboard", "mlfow"])
    assert check_trackers(["wandb", "wandb"]) == ("wandb",)


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_package_is_answered_with_the_command_to_install_it(
    name: str, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(LINES[:1])
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"pip install 'palaestra\[tracking\]'"):
        replay(RunRecord(folder.path), [name])
    with pytest.raises(UserError, match=r"pip install 'palaestra\[tracking\]'"):
        open_trackers([name], RunRecord(folder.path))


class Failing(Tracker):
    """Fails at the first value."""

    def __init__(self, record: RunRecord) -> None:
        pass

    def config(self, values: Any) -> None:
        pass

    def log(self, metrics: Any, agent_steps: int) -> None:
        raise OSError("disk full")

    def close(self) -> None:
        raise AssertionError("a tracker that failed is left alone")


def test_a_tracker_that_fails_does_not_end_the_run_and_says_so_once(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palaestra.runs.trackers.tensorboard.TensorBoardTracker", Failing)
    said: list[str] = []
    (tracker,) = open_trackers(["tensorboard"], RunRecord(make_run([]).path), said.append)
    for row in LINES[:3]:
        tracker.log(row, row["agent_steps"])
    tracker.close()
    assert len(said) == 1
    assert "disk full" in said[0]
    assert "palaestra track walk --to tensorboard" in said[0]


def test_a_tracker_that_cannot_be_opened_is_left_out_of_a_run_and_ends_a_replay(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palaestra.runs.trackers.tensorboard.TensorBoardTracker", Failing)
    folder, said = make_run(LINES), []
    assert open_trackers(["tensorboard"], RunRecord(folder.path), said.append) == []
    assert len(said) == 1
    with pytest.raises(RunError, match="OSError: disk full"):
        replay(RunRecord(folder.path), ["tensorboard"])


def test_a_run_in_training_keeps_the_trackers_that_it_writes_itself(make_run: MakeRun) -> None:
    folder = make_run(LINES[:2])
    with RunLock(folder.path):
        with pytest.raises(UserError, match="is being trained by process"):
            replay(RunRecord(folder.path), ["tensorboard"])
        replay(RunRecord(folder.path), ["mlflow"])
    assert_holds("mlflow", folder, LINES[:2])


def test_nothing_is_written_beside_the_runs(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run(LINES[:2])
    replay(RunRecord(folder.path), TRACKERS)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert {path.name for path in folder.path.parent.iterdir()} <= {"walk", "mlflow.db"}
