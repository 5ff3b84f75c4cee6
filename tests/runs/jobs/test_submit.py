"""What submitting a run comes to: a new attempt, an attachment, nothing, or an error."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeClient
from hypothesis import given
from hypothesis import strategies as st

from palaestra.errors import RunError, UserError
from palaestra.runs.config import config_hash, load_config
from palaestra.runs.jobs import submit as module
from palaestra.runs.jobs.client import Cluster, Submission
from palaestra.runs.jobs.package import Upload
from palaestra.runs.jobs.submit import Decision, Job, decide, prepare, submit, submit_and_show
from palaestra.runs.store.folder import RunFolder
from palaestra.runs.store.record import RunRecord

CONFIG = load_config("demo", ["threads=1", "evaluation=null"])


@pytest.fixture
def job(tmp_path: Path) -> Job:
    upload = Upload(tmp_path / "runs")
    upload.add("config.yaml", b"seed: 0\n")
    return Job(CONFIG, "r", tmp_path / "runs", upload)


def finished(job: Job, status: str = "succeeded") -> RunFolder:
    folder = RunFolder.create(job.run_id, job.config, job.storage)
    folder.update_manifest(status=status, agent_steps=job.config.total_steps)
    return folder


def test_the_first_attempt_is_one(job: Job) -> None:
    client = FakeClient()
    assert submit(Cluster(client, "here"), job) == Decision("submit", "r-a1")
    (sent,) = client.submitted
    assert sent["entrypoint"] == "python -m palaestra train config.yaml --run-id r --resume auto"
    assert sent["metadata"] == {
        "run_id": "r",
        "experiment": CONFIG.experiment,
        "config_hash": config_hash(CONFIG),
        "storage": str(job.storage),
    }
    variables = sent["runtime_env"]["env_vars"]
    assert variables["PALAESTRA_RUNS"] == str(job.storage)
    assert variables["RAY_JOB_SUBMISSION_ID"] == "r-a1"
    assert int(variables["RAY_JOB_STOP_WAIT_TIME_S"]) >= 60
    assert not Path(sent["runtime_env"]["working_dir"]).exists()  # uploaded and removed


@pytest.mark.parametrize("status", ["PENDING", "RUNNING"])
def test_an_active_attempt_is_attached_to(job: Job, status: str) -> None:
    client = FakeClient()
    client.add("r-a1", "FAILED")
    client.add("r-a2", status, config_hash=config_hash(CONFIG))
    finished(job)  # as a killed attempt may have left it
    assert submit(Cluster(client, "here"), job) == Decision("attach", "r-a2")
    assert not client.submitted


@pytest.mark.parametrize("status", ["FAILED", "STOPPED", "SUCCEEDED"])
def test_an_attempt_that_ended_is_followed_by_the_next(job: Job, status: str) -> None:
    client = FakeClient()
    client.add("r-a1", "STOPPED")
    client.add("r-a10", status)
    client.add("r-a9", "FAILED")
    client.add("other-a77", "RUNNING")
    client.add("r-a2-a90", "RUNNING")  # of the run called r-a2
    finished(job, "stopped")
    assert submit(Cluster(client, "here"), job) == Decision("submit", "r-a11")


def test_a_run_that_succeeded_is_not_submitted_again(job: Job) -> None:
    client = FakeClient()
    finished(job)
    assert submit(Cluster(client, "here"), job) == Decision("done")
    assert not client.submitted


def test_a_run_whose_evaluation_or_report_was_lost_is_submitted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config("demo", ["threads=1"])
    job = Job(config, "r", tmp_path, Upload(tmp_path))
    finished(job)
    assert submit(Cluster(FakeClient(), "here"), job).what == "submit"
    monkeypatch.setattr(RunRecord, "is_evaluated", lambda record, wanted: True)
    assert submit(Cluster(FakeClient(), "here"), job).what == "submit"
    monkeypatch.setattr(RunRecord, "is_reported", lambda record: True)
    assert submit(Cluster(FakeClient(), "here"), job).what == "done"


def test_the_loser_of_two_submitters_attaches_to_the_winners_job(job: Job) -> None:
    client = FakeClient(rivals=[("r-a1", {"config_hash": config_hash(CONFIG)})])
    assert submit(Cluster(client, "here"), job) == Decision("attach", "r-a1")
    assert not client.submitted


def test_the_loser_with_another_configuration_is_told_so(job: Job) -> None:
    client = FakeClient(rivals=[("r-a1", {"config_hash": "deadbeef"})])
    with pytest.raises(UserError, match=r"r-a1 is active with another configuration.*deadbeef"):
        submit(Cluster(client, "here"), job)


def test_an_id_that_a_foreign_job_holds_is_an_error(job: Job) -> None:
    client = FakeClient()
    client.add("r-a1", "RUNNING")
    client.jobs["r-a1"].metadata = {}
    with pytest.raises(RunError, match="'r-a1' is taken"):
        submit(Cluster(client, "here"), job)


def test_what_the_cluster_refuses_is_an_error_that_names_it(job: Job) -> None:
    client = FakeClient()
    client.submit_job = _refuse  # type: ignore[method-assign]
    with pytest.raises(RunError, match="cluster at here says: Request failed with status code 500"):
        submit(Cluster(client, "here"), job)


def _refuse(**job: Any) -> str:
    raise RuntimeError("Request failed with status code 500: full.")


@given(
    st.dictionaries(
        st.integers(1, 99), st.sampled_from(["PENDING", "RUNNING", "STOPPED", "FAILED"]), max_size=9
    ),
    st.booleans(),
)
def test_an_attempt_is_new_or_active_and_nothing_runs_twice(
    earlier: dict[int, str], complete: bool
) -> None:
    submissions = [Submission(f"r-a{n}", "r", n, status) for n, status in earlier.items()]
    active = {s.id for s in submissions if s.active}
    decision = decide("r", submissions, complete)
    if active:
        assert decision.what == "attach"
        assert decision.submission_id in active
    elif complete:
        assert decision == Decision("done")
    else:
        assert decision == Decision("submit", f"r-a{max(earlier, default=0) + 1}")


def test_preparing_twice_gives_the_same_job(tmp_path: Path) -> None:
    one, two = (prepare(CONFIG, storage=tmp_path / "runs") for _ in range(2))
    assert (one.run_id, one.entrypoint, one.upload.files) == (
        two.run_id,
        two.entrypoint,
        two.upload.files,
    )
    assert one.storage.is_absolute()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("run_id", ["a b", "../up", "-x", "a;rm", "a\n", "$(x)"])
def test_a_run_id_that_a_shell_could_read_otherwise_is_refused(run_id: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run id"):
        prepare(CONFIG, run_id, storage=tmp_path)


def test_the_command_of_a_job_is_words_without_meaning_to_a_shell(job: Job) -> None:
    words = shlex.split(job.entrypoint)
    assert words[words.index("--run-id") + 1] == "r"
    assert shlex.join(words) == job.entrypoint


@pytest.mark.parametrize(
    ("overrides", "address"),
    [
        (["rollout.workers=2", "env.num_envs=4"], "auto"),
        (["rollout.workers=2", "env.num_envs=4", "rollout.backend=local"], None),
        (["rollout.address=192.0.2.1:6379"], None),
    ],
)
def test_workers_live_in_the_cluster_of_the_job(
    tmp_path: Path, overrides: list[str], address: str | None
) -> None:
    config = load_config("demo", ["threads=1", *overrides])
    sent = prepare(config, "r", storage=tmp_path).upload
    path = tmp_path / "sent.yaml"
    path.write_bytes(sent.files["config.yaml"])  # type: ignore[arg-type]
    read = load_config(str(path))
    assert read.rollout.address == address
    assert config_hash(read) == config_hash(config)


def test_a_run_of_another_configuration_is_refused_with_the_keys_that_differ(job: Job) -> None:
    finished(job, "stopped")
    other = load_config("demo", ["threads=1", "evaluation=null", "agent.gamma=0.5"])
    with pytest.raises(UserError, match=r"agent\.gamma: .* -> 0\.5") as caught:
        prepare(other, "r", storage=job.storage)
    assert "seed" not in str(caught.value)
    prepare(CONFIG.model_copy(update={"tensorboard": False}), "r", storage=job.storage)


def test_following_ends_with_the_code_of_the_job_and_prints_each_line_once(
    job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = FakeClient(log="".join(f"line {i}\n" for i in range(5)))
    monkeypatch.setattr(module, "connect", lambda address: Cluster(client, address))
    monkeypatch.setattr("palaestra.runs.jobs.client._POLL_S", 0)
    assert submit_and_show(job, "http://here:1", follow_job=True) == 0
    out, err = capsys.readouterr()
    assert out == client.log
    assert "r-a1: submitted" in err
    assert "r-a1: SUCCEEDED" in err


@pytest.mark.parametrize(("status", "code"), [("SUCCEEDED", 0), ("FAILED", 1), ("STOPPED", 1)])
def test_the_exit_code_of_following_mirrors_the_job(
    job: Job, monkeypatch: pytest.MonkeyPatch, status: str, code: int
) -> None:
    client = FakeClient()

    async def end(submission_id: str) -> Any:
        client.jobs[submission_id].status = status
        yield client.log

    client.tail_job_logs = end  # type: ignore[method-assign]
    monkeypatch.setattr(module, "connect", lambda address: Cluster(client, address))
    monkeypatch.setattr("palaestra.runs.jobs.client._POLL_S", 0)
    assert submit_and_show(job, "http://here:1", follow_job=True) == code


def test_ctrl_c_leaves_the_job_running_and_says_so(
    job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = FakeClient()

    async def interrupt(submission_id: str) -> Any:
        raise KeyboardInterrupt
        yield

    client.tail_job_logs = interrupt  # type: ignore[method-assign]
    monkeypatch.setattr(module, "connect", lambda address: Cluster(client, address))
    with pytest.raises(KeyboardInterrupt):
        submit_and_show(job, "http://here:1", follow_job=True)
    assert "r-a1 continues without you" in capsys.readouterr().err
    assert not client.stopped


def test_json_is_one_object_on_standard_output(
    job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = FakeClient()
    monkeypatch.setattr(module, "connect", lambda address: Cluster(client, address))
    monkeypatch.setattr("palaestra.runs.jobs.client._POLL_S", 0)
    assert submit_and_show(job, "http://here:1", follow_job=True, as_json=True) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["submission_id"], shown["result"], shown["status"]) == (
        "r-a1",
        "submitted",
        "SUCCEEDED",
    )
