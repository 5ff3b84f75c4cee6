"""A run folder is read in one place, whatever its writer was doing when it died."""

import json
from pathlib import Path
from typing import Any

import pytest

from palaestra.errors import UserError
from palaestra.runs.config import EvaluationConfig, RunConfig, resolve
from palaestra.runs.report.build import build
from palaestra.runs.store.files import write_folder
from palaestra.runs.store.folder import RunFolder
from palaestra.runs.store.lock import RunLock
from palaestra.runs.store.record import RunRecord

WANTED = EvaluationConfig(suite="bandit", seeds=2, baselines=("ucb",))


def config(**changes: Any) -> RunConfig:
    values = {
        "total_steps": 100,
        "env": {"id": "CartPole-v1"},
        "agent": {"name": "sb3/ppo"},
        "threads": 1,
    }
    return resolve(values | changes)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    found = RunFolder.create("r", config(), tmp_path)
    found.begin_attempt(0)
    return found


def record(folder: RunFolder) -> RunRecord:
    return RunRecord(folder.path)


def end(folder: RunFolder, steps: int = 100) -> None:
    folder.end_attempt("succeeded", agent_steps=steps)


def summary(folder: RunFolder, agent: str, step: int = 100, **changes: Any) -> Path:
    data = {
        "agent": agent,
        "suite": "bandit",
        "seeds": [0, 1],
        "mode": "greedy" if agent == "sb3-ppo" else "sample",
        "tasks": [{"id": "bandit/one", "episodes": 4, "score": {"mean": 0.5}}],
        "config_hash": folder.manifest["config_hash"],
    }
    place = record(folder).evaluation_folder("bandit", step, agent)
    place.mkdir(parents=True, exist_ok=True)
    (place / "summary.json").write_text(json.dumps(data | changes))
    return place


def test_the_agent_is_called_as_the_manifest_says(folder: RunFolder) -> None:
    assert folder.manifest["agent"] == record(folder).agent == "sb3-ppo"
    folder.update_manifest(agent="champion")
    assert record(folder).agent == "champion"


def test_a_run_of_an_older_version_is_called_as_it_would_be_now(folder: RunFolder) -> None:
    del folder.manifest["agent"]
    folder.update_manifest()
    assert record(folder).agent == "sb3-ppo"


def test_a_run_is_running_only_while_its_process_lives(folder: RunFolder) -> None:
    with RunLock(folder.path):
        assert record(folder).status == "running"
    assert record(folder).status == "killed"
    end(folder)
    assert record(folder).status == "succeeded"


def test_steps_are_those_of_the_last_line_while_it_runs_and_of_the_manifest_at_its_end(
    folder: RunFolder,
) -> None:
    assert record(folder).steps == 0
    folder.write_metrics({"agent_steps": 40})
    assert record(folder).steps == 40
    end(folder, 50)
    assert record(folder).steps == 50
    folder.begin_attempt(50)
    folder.write_metrics({"agent_steps": 60})
    assert record(folder).steps == 60


@pytest.mark.parametrize("name", ["metrics", "episodes"])
def test_a_torn_last_line_is_left_out_and_told(folder: RunFolder, name: str) -> None:
    path = folder.path / f"{name}.jsonl"
    path.write_text('{"agent_steps": 1}\n{"agent_steps": 2}\n{"agent_st')
    assert [row["agent_steps"] for row in getattr(record(folder), name)()] == [1, 2]
    assert record(folder).notices == [
        f"{name}.jsonl: the last line was cut off in writing; it is left out."
    ]
    path.write_text('{"agent_steps": 1}\n')
    assert record(folder).notices == []


@pytest.mark.parametrize("line", ['{"agent_st', '{"loss": 1}', "[1]", "\0"])
def test_a_broken_line_elsewhere_is_named(folder: RunFolder, line: str) -> None:
    (folder.path / "metrics.jsonl").write_text('{"agent_steps": 1}\n' + line + "\n{}\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2: "):
        list(record(folder).metrics())


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", {}),
        ('{"a": 1', {}),
        ('{"a": 1}\n', {"a": 1}),
        ('{"a": 1}\n{"a": 2}\n{"a"', {"a": 2}),
        ("\0\n", {}),
    ],
)
def test_the_last_line_is_the_last_whole_one(
    folder: RunFolder, text: str, line: dict[str, int]
) -> None:
    (folder.path / "metrics.jsonl").write_text(text)
    assert record(folder).last_metrics() == line


def test_names_with_a_slash_are_one_folder(folder: RunFolder) -> None:
    place = summary(folder, "sb3/dqn", suite="mine/suite")
    assert place == folder.path / "eval" / "bandit-100" / "sb3-dqn"
    (found,) = record(folder).evaluations()
    assert (found.suite, found.step, found.agent) == ("mine/suite", 100, "sb3/dqn")
    assert record(folder).evaluation_folder("..", 1, "..").is_relative_to(folder.path / "eval")


def test_what_a_killed_writer_left_is_no_evaluation(folder: RunFolder) -> None:
    place = summary(folder, "ucb")
    place.rename(place.with_name(".tmp-ucb-7"))
    assert record(folder).evaluations() == []


def test_a_run_is_evaluated_when_its_agent_and_every_baseline_are(folder: RunFolder) -> None:
    end(folder)
    summary(folder, "sb3-ppo")
    assert not record(folder).is_evaluated(WANTED)
    summary(folder, "ucb")
    assert record(folder).is_evaluated(WANTED)


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": [0]},
        {"mode": "sample"},
        {"config_hash": "00000000"},
        {"suite": "other"},
    ],
)
def test_an_evaluation_of_something_else_does_not_count(
    folder: RunFolder, changes: dict[str, Any]
) -> None:
    end(folder)
    summary(folder, "ucb")
    summary(folder, "sb3-ppo", **changes)
    assert not record(folder).is_evaluated(WANTED)


def test_wanted_tasks_and_episodes_are_those_that_were_played(folder: RunFolder) -> None:
    end(folder)
    summary(folder, "sb3-ppo")
    summary(folder, "ucb")
    found = record(folder)
    for accepted in ({"tasks": ("one",)}, {"tasks": ("bandit/one",)}, {"episodes": 4}):
        assert found.is_evaluated(WANTED.model_copy(update=accepted))
    for refused in ({"tasks": ("two",)}, {"episodes": 5}, {"seeds": 3}):
        assert not found.is_evaluated(WANTED.model_copy(update=refused))


def test_an_extended_run_is_neither_evaluated_nor_reported(folder: RunFolder) -> None:
    end(folder)
    wanted = config(evaluation=WANTED.model_dump())
    for agent in ("sb3-ppo", "ucb"):
        summary(folder, agent)
    assert not record(folder).is_complete(wanted)
    build([record(folder).run()])
    assert record(folder).is_complete(wanted)
    assert not record(folder).is_complete(wanted.model_copy(update={"total_steps": 200}))
    folder.begin_attempt(100)
    end(folder, 200)
    assert not record(folder).is_evaluated(WANTED)
    assert not record(folder).is_reported()


def test_a_report_that_was_cut_or_lacks_an_evaluation_is_not_current(folder: RunFolder) -> None:
    end(folder)
    page = build([record(folder).run()])
    text = page.read_text(encoding="utf-8")
    assert record(folder).is_reported()
    for cut in (0, 5, len(text) // 2, len(text) - 1):
        page.write_text(text[:cut], encoding="utf-8")
        assert not record(folder).is_reported()
    page.write_text(text, encoding="utf-8")
    summary(folder, "ucb")
    assert not record(folder).is_reported()
    page.unlink()
    assert not record(folder).is_reported()


def test_artifacts_are_found_by_step_and_name(folder: RunFolder) -> None:
    place = folder.path / "artifacts" / "20"
    place.mkdir(parents=True)
    (place / "empowerment.npy").write_bytes(b"")
    (place / ".half.npy").write_bytes(b"")
    assert record(folder).artifacts() == [(20, "empowerment", place / "empowerment.npy")]


def test_a_folder_that_is_no_run_is_named_with_what_is_expected(
    tmp_path: Path, folder: RunFolder
) -> None:
    with pytest.raises(UserError, match=r"nowhere.*is not a folder.*config\.yaml"):
        RunRecord(tmp_path / "nowhere")
    (folder.path / "manifest.json").write_text("{\n{")
    with pytest.raises(UserError, match=r"manifest\.json, line 2"):
        record(folder)
    (folder.path / "manifest.json").write_text("[1]")
    with pytest.raises(UserError, match=r"manifest\.json: expected a mapping"):
        record(folder)
    (folder.path / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"has no config\.yaml"):
        record(folder)


def test_a_folder_that_is_written_again_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "place"
    write_folder({"one": b"1", "two": b"2"}, target)
    write_folder({"one": b"3"}, target)
    assert {file.name: file.read_bytes() for file in target.iterdir()} == {"one": b"3"}
    assert [path.name for path in target.parent.iterdir()] == ["place"]
    with pytest.raises(TypeError):
        write_folder({"one": b"4", "two": None}, target)  # type: ignore[dict-item]
    assert (target / "one").read_bytes() == b"3"
    assert [path.name for path in target.parent.iterdir()] == ["place"]
