"""What became of a run: from the cluster while it answers, else from the run folder."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import FakeClient

from palaestra.errors import RunError, UserError
from palaestra.runs.config import load_config
from palaestra.runs.jobs import status as module
from palaestra.runs.jobs.client import Cluster, NoAnswerError
from palaestra.runs.jobs.status import (
    read_progress,
    show_jobs,
    show_logs,
    show_status,
    stop_run,
)
from palaestra.runs.store.folder import RunFolder
from palaestra.runs.store.lock import RunLock
from palaestra.runs.store.record import Progress

CONFIG = load_config("demo", ["threads=1", "total_steps=1000"])
HERE = "http://here:1"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runs directory in which the job `r` is at a quarter and still runs."""
    monkeypatch.setenv("RAY_JOB_SUBMISSION_ID", "r-a2")
    folder = RunFolder.create("r", CONFIG, tmp_path / "runs")
    folder.begin_attempt(0)
    monkeypatch.delenv("RAY_JOB_SUBMISSION_ID")
    folder.write_metrics({"agent_steps": 150, "time/agent_steps_per_s": 40.0})
    folder.write_metrics({"agent_steps": 250, "time/agent_steps_per_s": 50.0})
    with RunLock(folder.path):
        yield tmp_path / "runs"


@pytest.fixture
def client(runs: Path, monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """A cluster where `r` was stopped once and runs again."""
    fake = FakeClient()
    fake.add("r-a1", "STOPPED", storage=str(runs))
    fake.add("r-a2", "RUNNING", storage=str(runs))
    fake.add("far-a1", "FAILED", storage="/nowhere/to/be/seen")
    monkeypatch.setattr(module, "connect", lambda address: Cluster(fake, address))
    return fake


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: str) -> Cluster:
        raise NoAnswerError(f"no Ray cluster answers at {address}.")

    monkeypatch.setattr(module, "connect", refuse)


def test_progress_is_that_of_the_last_whole_line(runs: Path) -> None:
    with (runs / "r" / "metrics.jsonl").open("a") as file:
        file.write('{"agent_steps": 300, "time/ag')  # killed while it wrote
    progress = read_progress(runs / "r")
    assert progress is not None
    assert (progress.status, progress.agent_steps, progress.total_steps) == ("running", 250, 1000)
    assert str(progress) == "250/1,000 steps (25%), 50/s"


@pytest.mark.usefixtures("no_cluster")
def test_a_run_that_nobody_writes_any_more_was_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RunFolder.create("r", CONFIG, tmp_path).begin_attempt(0)
    progress = read_progress(tmp_path / "r")
    assert progress is not None
    assert progress.status == "killed"
    assert show_logs("r", HERE, tmp_path, follow_run=True) == 1
    stop_run("r", HERE, tmp_path)
    assert "r does not run: killed" in capsys.readouterr().err
    assert not (tmp_path / "r" / "stop-requested").exists()


def test_a_run_without_a_line_stands_at_its_beginning(tmp_path: Path) -> None:
    RunFolder.create("new", CONFIG, tmp_path)
    assert str(read_progress(tmp_path / "new")) == "0/1,000 steps (0%)"
    assert read_progress(tmp_path / "nothing") is None


def test_the_table_shows_every_submission_and_progress_where_it_can_be_seen(
    client: FakeClient, capsys: pytest.CaptureFixture[str]
) -> None:
    show_jobs(HERE, as_json=True)
    rows = {row["submission_id"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == ["r-a1", "r-a2", "far-a1"]
    assert rows["r-a2"]["status"] == "RUNNING"
    assert rows["r-a2"]["progress"]["agent_steps"] == 250
    assert rows["far-a1"]["progress"] is None
    client.add("[/odd]-a1", "FAILED")
    show_jobs(HERE, as_json=False)
    out = capsys.readouterr().out
    assert "[/odd]-a1" in out
    assert "250/1,000 steps (25%), 50/s" in out
    assert len(out.splitlines()) == 5


@pytest.mark.parametrize("name", ["manifest.json", "config.yaml"])
def test_a_broken_folder_does_not_hide_the_other_runs(
    client: FakeClient, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = RunFolder.create("broken", CONFIG, tmp_path / "more")
    (folder.path / name).write_text("[]")
    client.add("broken-a1", "FAILED", storage=str(tmp_path / "more"))
    show_jobs(HERE, as_json=True)
    out, err = capsys.readouterr()
    assert [row["submission_id"] for row in json.loads(out)][-1] == "broken-a1"
    assert f"broken-a1: {folder.path / name}: not the " in err


@pytest.mark.usefixtures("no_cluster")
def test_the_table_needs_a_cluster() -> None:
    with pytest.raises(UserError, match="no Ray cluster answers"):
        show_jobs(HERE, as_json=False)


@pytest.mark.parametrize(("name", "shown"), [("r", "r-a2"), ("r-a1", "r-a1"), ("r-a2", "r-a2")])
def test_a_run_is_named_by_its_id_or_by_that_of_a_submission(
    client: FakeClient, capsys: pytest.CaptureFixture[str], name: str, shown: str
) -> None:
    show_status(name, HERE, Path("elsewhere"), as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["submission_id"], found["run_id"]) == (shown, "r")
    assert found["progress"]["rate"] == 50


@pytest.mark.usefixtures("no_cluster")
@pytest.mark.parametrize("name", ["r", "r-a1", "r-a12"])
def test_status_comes_from_the_folder_when_the_cluster_is_gone(
    runs: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    show_status(name, HERE, runs, as_json=True)
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["run_id"], found["status"], found["submission_id"]) == ("r", "running", None)
    assert found["progress"]["agent_steps"] == 250
    assert "from the run folder" in err
    assert "no Ray cluster answers" in err


@pytest.mark.usefixtures("no_cluster")
def test_without_a_cluster_near_runs_are_named(runs: Path) -> None:
    RunFolder.create("cartpole-1", CONFIG, runs)
    with pytest.raises(UserError, match=r"'cartpol-1': did you mean 'cartpole-1'"):
        show_status("cartpol-1", HERE, runs, as_json=False)


def test_with_a_cluster_near_runs_and_submissions_are_named(client: FakeClient, runs: Path) -> None:
    with pytest.raises(UserError, match=r"'fra-a1': did you mean 'far-a1'"):
        show_status("fra-a1", HERE, runs, as_json=False)


def test_a_run_of_this_machine_is_found_where_the_cluster_does_not_know_it(
    client: FakeClient, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RunFolder.create("own", CONFIG, runs)
    show_status("own", HERE, runs, as_json=False)
    out, err = capsys.readouterr()
    assert "created" in out
    assert err == ""


@pytest.mark.usefixtures("no_cluster")
def test_a_run_that_was_never_submitted_is_shown_without_a_word_on_clusters(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RunFolder.create("own", CONFIG, runs).begin_attempt(0)
    show_status("own", HERE, runs, as_json=False)
    out, err = capsys.readouterr()
    assert "killed" in out
    assert err == ""


def test_logs_are_those_of_the_job(
    client: FakeClient, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show_logs("r", HERE, runs, follow_run=False) == 0
    assert capsys.readouterr().out == client.log


@pytest.mark.usefixtures("no_cluster")
@pytest.mark.parametrize(("status", "code"), [("succeeded", 0), ("failed", 1), ("stopped", 1)])
def test_logs_come_from_the_folder_when_the_cluster_is_gone(
    runs: Path, capsys: pytest.CaptureFixture[str], status: str, code: int
) -> None:
    folder = RunFolder.open(runs / "r")
    folder.end_attempt(status)
    assert show_logs("r", HERE, runs, follow_run=False) == 0
    assert capsys.readouterr().out == (folder.path / "log.txt").read_text()
    assert show_logs("r", HERE, runs, follow_run=True) == code


@pytest.mark.usefixtures("no_cluster")
def test_following_a_folder_prints_what_is_added_until_the_run_ends(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder.open(runs / "r")
    steps = iter([lambda: folder.log("more"), lambda: folder.end_attempt("succeeded")])
    monkeypatch.setattr(module.time, "sleep", lambda seconds: next(steps)())
    assert show_logs("r", HERE, runs, follow_run=True) == 0
    assert capsys.readouterr().out == (folder.path / "log.txt").read_text()


@pytest.mark.usefixtures("no_cluster")
def test_a_run_without_a_log_says_so(runs: Path) -> None:
    (runs / "r" / "log.txt").unlink()
    with pytest.raises(RunError, match=r"no log\.txt yet"):
        show_logs("r", HERE, runs, follow_run=False)


def test_stopping_asks_the_latest_attempt(client: FakeClient, runs: Path) -> None:
    stop_run("r", HERE, runs)
    assert client.stopped == ["r-a2"]
    assert not (runs / "r" / "stop-requested").exists()


def test_stopping_what_has_ended_says_how(
    client: FakeClient, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop_run("r-a1", HERE, runs)
    assert not client.stopped
    assert "r-a1 has ended already: STOPPED" in capsys.readouterr().err


def test_a_job_that_does_not_run_yet_cannot_be_stopped(client: FakeClient, runs: Path) -> None:
    client.jobs["r-a2"].status = "PENDING"
    with pytest.raises(RunError, match="does not run yet"):
        stop_run("r", HERE, runs)


@pytest.mark.usefixtures("no_cluster")
def test_without_a_cluster_stopping_leaves_a_request_in_the_folder(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop_run("r", HERE, runs)
    folder = RunFolder.open(runs / "r")
    assert folder.stop_requested()
    (folder.path / "stop-requested").unlink()
    folder.end_attempt("failed")
    stop_run("r", HERE, runs)
    assert not folder.stop_requested()
    assert "does not run: failed" in capsys.readouterr().err


def test_progress_without_a_rate_says_none() -> None:
    assert str(Progress("created", 0, 10, None, None, None)) == "0/10 steps (0%)"
