"""The command line as users type it: outputs, exit codes, nothing left behind by bad input."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TINY = [
    "-o",
    "threads=1",
    "-o",
    "env.num_envs=4",
    "-o",
    "rollout.steps=50",
    "-o",
    "total_steps=400",
]


def palaestra(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "palaestra", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny run `tiny`, evaluated and reported."""
    folder = tmp_path_factory.mktemp("work")
    tiny = [*TINY, "-o", "evaluation.seeds=2", "-o", "evaluation.episodes=5"]
    done = palaestra(folder, "train", "demo", *tiny, "--run-id", "tiny", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["status"] == "succeeded"
    return folder


def test_a_run_leaves_the_files_that_are_promised(finished: Path) -> None:
    run = finished / "runs" / "tiny"
    for name in ("config.yaml", "manifest.json", "metrics.jsonl", "episodes.jsonl", "report.html"):
        assert (run / name).is_file(), name
    assert list((run / "tensorboard").glob("events*"))
    assert (run / "eval" / "bandit-400" / "ppo-gru" / "summary.json").is_file()
    assert (run / "eval" / "bandit-400" / "ucb" / "episodes.jsonl").is_file()
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["status"] == "succeeded"
    assert manifest["agent_steps"] == 400
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["agent_steps"] for line in lines] == [200, 400]
    assert {"rollout/return", "rollout/regret", "train/approx_kl"} <= set(lines[0])


def test_a_run_can_be_evaluated_and_reported_again(finished: Path) -> None:
    done = palaestra(
        finished,
        "evaluate",
        "tiny",
        "--suite",
        "bandit",
        "--seeds",
        "1",
        "--episodes",
        "4",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {task["id"] for task in result["tasks"]} <= {"bandit/k5-normal-1"}
    done = palaestra(finished, "report", "tiny", "--out", "page.html")
    assert done.returncode == 0, done.stderr
    assert (finished / "page.html").is_file()


def test_a_run_id_that_exists_is_refused_and_nothing_is_lost(finished: Path) -> None:
    before = (finished / "runs" / "tiny" / "manifest.json").read_bytes()
    done = palaestra(finished, "train", "demo", *TINY, "--run-id", "tiny")
    assert done.returncode == 2
    assert "run 'tiny' exists" in done.stderr
    assert (finished / "runs" / "tiny" / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "demoo"], "unknown preset 'demoo': did you mean 'demo'"),
        (["train", "demo", "-o", "agent.gama=1"], "agent.gama: unknown key"),
        (["train", "demo", "-o", "env.id=CartPol-v1"], "unknown env 'CartPol-v1'"),
        (["train", "demo", "-o", "env.options.foo=1"], "foo: unknown option"),
        (["train", "demo", "--run-id", "../up"], "run id '../up'"),
        (["train", "demo", "--workers", "2", "--address", "127.0.0.1:1"], "does not answer"),
        (["train", "cartpole", "-o", "agent.name=ucb", "-o", "policy=null"], "does not learn"),
        (
            ["evaluate", "ucbb", "--suite", "bandit"],
            "'ucbb' is neither a baseline nor a run",
        ),
        (["evaluate", "ucb", "--suite", "bandits"], "unknown suite 'bandits'"),
        (["evaluate", "ucb", "--suite", "bandit", "--task", "k3"], "no task 'k3'"),
        (["evaluate", "ucb", "--suite", "tictactoe"], "fits no task"),
        (["evaluate", "ppo", "--suite", "bandit"], "has to be trained first"),
        (["report", "nothing"], "unknown run 'nothing'"),
        (["describe", "policy", "gruu"], "unknown policy 'gruu': did you mean 'gru'"),
        (["list", "polices"], "unknown kind 'polices'"),
    ],
)
def test_bad_input_is_named_with_exit_code_2(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = palaestra(tmp_path, *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout
    assert not list(tmp_path.iterdir())


def test_a_dry_run_shows_the_configuration_and_writes_nothing(tmp_path: Path) -> None:
    done = palaestra(tmp_path, "train", "demo", "--dry-run", "--json")
    shown = json.loads(done.stdout)
    assert shown["config"]["policy"]["name"] == "gru"
    assert shown["agent_steps_per_update"] == 512 * 50
    assert not list(tmp_path.iterdir())


def test_listing_and_describing_give_json_alone(tmp_path: Path) -> None:
    listed = json.loads(palaestra(tmp_path, "list", "--json").stdout)
    assert {row["name"] for row in listed["policy"]} >= {"mlp", "gru", "attention"}
    described = json.loads(palaestra(tmp_path, "describe", "agent", "ppo", "--json").stdout)
    options = {option["name"]: option for option in described["options"]}
    assert options["gamma"]["default"] == 0.99
    assert options["gamma"]["help"]


def imported_by(folder: Path, arguments: list[str], heavy: set[str]) -> str:
    """Return which of the `heavy` packages a verb imports."""
    code = (
        "import sys; from palaestra.runs.cli.app import app\n"
        f"try: app({arguments!r})\nexcept SystemExit: pass\n"
        f"print('imported:', sorted({heavy!r} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["describe", "policy", "gru"]])
def test_light_verbs_import_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    heavy = {"ray", "stable_baselines3", "matplotlib", "plotly"}
    assert imported_by(tmp_path, arguments, heavy) == "imported: []"


def test_an_in_process_run_imports_neither_ray_nor_stable_baselines(tmp_path: Path) -> None:
    arguments = ["train", "demo", *TINY, "-o", "evaluation=null", "-o", "tensorboard=false"]
    assert imported_by(tmp_path, arguments, {"ray", "stable_baselines3"}) == "imported: []"
