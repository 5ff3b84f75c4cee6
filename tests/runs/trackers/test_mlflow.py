"""What MLflow shows of a run beside its curves, and what a page over many runs brings to it."""

from pathlib import Path
from typing import Any

import pytest
from tracker_cases import CONFIG, MakeRun, line

from palaestra.errors import UserError
from palaestra.runs.store.folder import RunFolder
from palaestra.runs.store.lock import RunLock
from palaestra.runs.store.record import RunRecord
from palaestra.runs.trackers import open_trackers, replay
from palaestra.runs.trackers.mlflow import ARTIFACTS, find_runs, open_store
from palaestra.runs.trackers.ui import find_runs_in, sync


def shown(folder: RunFolder) -> Any:
    (run,) = find_runs(open_store(folder.path.parent), folder.manifest["run_id"])
    return run


@pytest.mark.parametrize(
    ("status", "shown_as"), [("succeeded", "FINISHED"), ("stopped", "KILLED"), ("failed", "FAILED")]
)
def test_the_status_is_that_of_the_manifest(status: str, shown_as: str, make_run: MakeRun) -> None:
    folder = make_run([line(0)])
    folder.end_attempt(status)
    replay(RunRecord(folder.path), ["mlflow"])
    assert shown(folder).info.status == shown_as
    assert shown(folder).data.tags["palaestra.status"] == status


def test_a_run_is_running_while_a_process_holds_it_and_killed_without_one(
    make_run: MakeRun,
) -> None:
    folder = make_run([line(0)])
    with RunLock(folder.path):
        replay(RunRecord(folder.path), ["mlflow"])
        assert shown(folder).info.status == "RUNNING"
    replay(RunRecord(folder.path), ["mlflow"])
    assert shown(folder).info.status == "KILLED"


def test_tags_and_parameters_say_what_ran(make_run: MakeRun) -> None:
    folder = make_run([line(0)])
    replay(RunRecord(folder.path), ["mlflow"])
    run = shown(folder)
    tags = {key.removeprefix("palaestra."): value for key, value in run.data.tags.items()}
    wanted = {"run_id": "walk", "agent": "ppo", "policy": "mlp", "env": "CartPole-v1", "seed": "3"}
    assert wanted.items() <= tags.items()
    assert run.info.run_name == "walk"
    assert run.data.params["agent.gamma"] == "0.99"
    assert run.data.params["policy.hidden_sizes"] == "[64, 64]"
    assert run.data.params["total_steps"] == str(CONFIG["total_steps"])


def test_names_that_mlflow_refuses_are_written_with_an_underscore(make_run: MakeRun) -> None:
    folder = make_run([{**line(0), "train/kl(θ)": 1.0}])
    replay(RunRecord(folder.path), ["mlflow"])
    assert shown(folder).data.metrics["train/kl___"] == 1.0


@pytest.mark.parametrize("name", ["sb3/ppo", "../../up", ".."])
def test_whatever_an_experiment_is_called_its_artifacts_stay_in_their_folder(
    name: str, make_run: MakeRun
) -> None:
    folder = make_run([line(0)], experiment=name)
    replay(RunRecord(folder.path), ["mlflow"])
    found = open_store(folder.path.parent).get_experiment_by_name(name)
    place = Path(found.artifact_location.removeprefix("file://"))
    assert place.resolve().parent == (folder.path.parent / ARTIFACTS).resolve()


def test_runs_deleted_in_the_page_come_back_once(make_run: MakeRun) -> None:
    folder = make_run([line(0)])
    replay(RunRecord(folder.path), ["mlflow"])
    client = open_store(folder.path.parent)
    client.delete_run(shown(folder).info.run_id)
    client.delete_experiment(client.get_experiment_by_name("walk").experiment_id)
    replay(RunRecord(folder.path), ["mlflow"])
    assert shown(folder).info.lifecycle_stage == "active"
    assert client.get_experiment_by_name("walk").lifecycle_stage == "active"


def test_only_new_and_changed_runs_are_brought(make_run: MakeRun) -> None:
    one, two = make_run([line(0)], "one"), make_run([line(0)], "two")
    root, said = one.path.parent, []
    assert sync(root, said.append) == ["one", "two"]
    assert sync(root, said.append) == []
    two.write_metrics(line(10))
    assert sync(root, said.append) == ["two"]
    one.end_attempt("succeeded")
    assert sync(root, said.append) == ["one"]
    assert sync(root, said.append) == []


def test_what_was_logged_in_training_is_not_brought_again(make_run: MakeRun) -> None:
    folder = make_run([])
    (tracker,) = open_trackers(["mlflow"], RunRecord(folder.path))
    for step in (0, 10):
        folder.write_metrics(line(step))
        tracker.log(line(step), step)
    folder.end_attempt("succeeded")
    tracker.close()
    assert sync(folder.path.parent, print) == []


def test_a_run_that_writes_to_mlflow_itself_is_left_to_it(make_run: MakeRun) -> None:
    folder = make_run([line(0)], trackers=["mlflow"])
    with RunLock(folder.path):
        assert sync(folder.path.parent, print) == []
    assert sync(folder.path.parent, print) == ["walk"]


def test_a_broken_run_does_not_hide_the_others(make_run: MakeRun) -> None:
    broken, whole = make_run([line(0)], "broken"), make_run([line(0)], "whole")
    (broken.path / "metrics.jsonl").write_text("{}\n" * 2)
    said: list[str] = []
    assert sync(whole.path.parent, said.append) == ["whole"]
    assert any("run broken is left out" in message for message in said)


def test_a_folder_without_runs_says_how_to_make_one(make_run: MakeRun, tmp_path: Any) -> None:
    with pytest.raises(UserError, match="palaestra train demo"):
        find_runs_in(tmp_path / "runs")
