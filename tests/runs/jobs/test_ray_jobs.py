"""Submission to a real cluster: runs end, are not started over, and resume where they stopped."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ray_head import Head, ray_head

PLUGIN = Path(__file__).parents[3] / "examples" / "plugin"
TINY = ("threads=1", "tensorboard=false", "policy.width=8", "checkpoint.every=10000")
WAIT_S = 180

Palaestra = Callable[..., subprocess.CompletedProcess[str]]
"""Runs the command line with the given arguments in a scratch folder."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head() as running:
        yield running


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory, beside the installed example plug-in and a module of the user's."""
    folder = tmp_path_factory.mktemp("jobs")
    source = folder / "source"
    shutil.copytree(PLUGIN, source, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target"]
    subprocess.run([*pip, *options, str(folder / "site"), str(source)], check=True)
    (folder / "work").mkdir()
    (folder / "work" / "mine.py").write_text(
        "from palaestra.registry import register\n"
        "from palaestra_example_plugin.ema import EMAPolicy\n"
        "import os\n"
        "print('mine is in', os.path.dirname(os.path.abspath(__file__)))\n"
        "@register('policy', 'mine')\n"
        "class Mine(EMAPolicy):\n"
        "    '''The same under another name.'''\n"
    )
    return folder / "work"


@pytest.fixture
def palaestra(head: Head, work: Path) -> Palaestra:
    def run(verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(work.parent / "site")}
        return subprocess.run(
            [sys.executable, "-m", "palaestra", verb, *arguments, "--address", head.address],
            cwd=work,
            env=os.environ | own | head.environment,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
        )

    return run


def recall(run_id: str, *settings: str) -> list[str]:
    given = [word for setting in (*TINY, *settings) for word in ("-o", setting)]
    return [str(PLUGIN / "recall.yaml"), *given, "--run-id", run_id]


def manifest(work: Path, run_id: str) -> dict:
    return json.loads((work / "runs" / run_id / "manifest.json").read_text())


def status(palaestra: Palaestra, name: str) -> dict:
    shown = palaestra("status", name, "--json")
    assert shown.returncode == 0, shown.stderr
    return json.loads(shown.stdout)


def wait(palaestra: Palaestra, name: str, until: Callable[[dict], bool]) -> dict:
    deadline = time.monotonic() + WAIT_S
    while not until(found := status(palaestra, name)):
        assert time.monotonic() < deadline, found
        time.sleep(1)
    return found


def test_a_plug_in_that_the_cluster_lacks_trains_in_the_job_and_in_its_workers(
    palaestra: Palaestra, work: Path
) -> None:
    plug_in = ("plugins=[mine]", "policy.name=mine", "policy.width=8")
    arguments = recall("workers", "total_steps=4096", *plug_in)
    ended = palaestra("submit", *arguments, "--workers", "2", "-f")
    assert ended.returncode == 0, ended.stderr
    assert "workers-a1: SUCCEEDED" in ended.stderr
    assert "mine is in /tmp/rj-" in ended.stdout  # not the file of this folder
    run = manifest(work, "workers")
    assert (run["status"], run["failures"]) == ("succeeded", [])
    assert run["attempts"][0]["submission_id"] == "workers-a1"
    assert palaestra("logs", "workers").stdout in ended.stdout


def test_a_run_that_succeeded_is_never_started_over(palaestra: Palaestra, work: Path) -> None:
    arguments = recall("once", "total_steps=2048")
    assert palaestra("submit", *arguments, "-f").returncode == 0
    before = manifest(work, "once")
    again = palaestra("submit", *arguments, "-f", "--json")
    assert again.returncode == 0, again.stderr
    assert "succeeded already" in again.stderr
    assert json.loads(again.stdout)["submission_id"] is None
    assert manifest(work, "once") == before
    other = palaestra("submit", *recall("once", "total_steps=2048", "agent.gamma=0.5"))
    assert other.returncode == 2
    assert "agent.gamma: 0.99 -> 0.5" in other.stderr


def test_a_job_stopped_half_way_goes_on_when_it_is_submitted_again(
    palaestra: Palaestra, work: Path
) -> None:
    arguments = recall("long", "total_steps=250000")
    first = palaestra("submit", *arguments)
    assert first.stdout == "long-a1\n", first.stderr
    same = palaestra("submit", *arguments)
    assert same.stdout == "long-a1\n"
    assert "active already" in same.stderr
    wait(palaestra, "long", lambda run: bool(run["progress"] and run["progress"]["agent_steps"]))
    assert palaestra("stop", "long").returncode == 0
    stopped = wait(palaestra, "long", lambda run: run["status"] != "RUNNING")
    assert (stopped["status"], stopped["run_status"]) == ("STOPPED", "stopped")
    assert 0 < stopped["progress"]["agent_steps"] < 250_000
    second = palaestra("submit", *arguments, "-f")
    assert second.returncode == 0, second.stderr
    attempts = manifest(work, "long")["attempts"]
    assert [attempt["submission_id"] for attempt in attempts] == ["long-a1", "long-a2"]
    assert attempts[1]["from_step"] == stopped["progress"]["agent_steps"]
    lines = (work / "runs" / "long" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["agent_steps"] for line in lines]
    assert steps == [1024 * (i + 1) for i in range(len(steps))]
    assert steps[-1] >= 250_000


def test_two_submitters_at_once_make_one_attempt(palaestra: Palaestra, head: Head) -> None:
    from concurrent.futures import ThreadPoolExecutor

    arguments = recall("race", "total_steps=2048")
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(palaestra, "submit", *arguments) for _ in range(2)]
        outputs = [one.result().stdout for one in both]
    assert outputs == ["race-a1\n", "race-a1\n"]
    listed = json.loads(palaestra("jobs", "--json").stdout)
    assert [row["submission_id"] for row in listed if row["run_id"] == "race"] == ["race-a1"]
    wait(palaestra, "race", lambda run: run["status"] == "SUCCEEDED")


def test_a_job_that_fails_ends_with_its_reason_and_code_1(palaestra: Palaestra) -> None:
    # What the job cannot know here: this environment takes no such option.
    failed = palaestra("submit", *recall("bad", "total_steps=64", "env.options.nope=1"), "-f")
    assert failed.returncode == 1
    assert "bad-a1: FAILED" in failed.stderr
    assert "nope" in failed.stdout
    assert "nope" in status(palaestra, "bad")["message"]


def test_the_users_own_token_is_brought_to_a_head_on_this_machine(head: Head, work: Path) -> None:
    token = {"RAY_AUTH_TOKEN_PATH": head.environment["RAY_AUTH_TOKEN_PATH"]}
    environment = {key: value for key, value in os.environ.items() if key != "RAY_AUTH_MODE"}
    shown = subprocess.run(
        [sys.executable, "-m", "palaestra", "jobs", "--address", head.address, "--json"],
        cwd=work,
        env=environment | token,
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0, shown.stderr


def test_a_cluster_that_asks_for_a_token_says_how_to_bring_one(head: Head, work: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "palaestra", "jobs", "--address", head.address],
        cwd=work,
        env=os.environ | {"RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 2
    assert "asks for a token" in shown.stderr
    assert "Traceback" not in shown.stderr
