"""An export acts as its run does, says what the run found, and is the same whenever it is made."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from export_example import SUITES, config_of
from PIL import Image

from palaestra.agents.base import Mode
from palaestra.envs import make_vec
from palaestra.envs.rows import reset_rows
from palaestra.errors import RunError, UserError
from palaestra.runs.evaluation.actors import RunActors
from palaestra.runs.evaluation.evaluate import evaluate
from palaestra.runs.export.layout import check_files, facts_of, is_export
from palaestra.runs.export.read import ExportedActors
from palaestra.runs.export.write import export_name, write_export
from palaestra.runs.store.folder import RunFolder

EVALUATED = sorted(SUITES)


def read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def replayed(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "replay.jsonl").read_text().splitlines()]


def front_matter(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


@pytest.mark.parametrize("mode", ["greedy", "sample"])
@pytest.mark.parametrize("name", EVALUATED)
def test_evaluating_an_export_equals_evaluating_its_run(
    name: str, mode: Mode, runs: dict[str, RunFolder], exports: dict[str, Path]
) -> None:
    wrappers = config_of(name).env.wrappers
    of_run, of_export = (
        evaluate(
            actors, SUITES[name], seeds=2, episodes=3, mode=mode, wrappers=wrappers, repetitions=50
        )
        for actors in (RunActors(runs[name]), ExportedActors(exports[name]))
    )
    assert of_export.rows == of_run.rows
    assert of_export.to_json() == of_run.to_json()


@pytest.mark.parametrize("name", EVALUATED)
def test_configuration_and_weights_come_back_as_they_were(
    name: str, runs: dict[str, RunFolder], exports: dict[str, Path]
) -> None:
    run, export = RunActors(runs[name]), ExportedActors(exports[name])
    assert export.weights.keys() == run.weights.keys()
    for key, array in run.weights.items():
        assert export.weights[key].dtype == array.dtype
        np.testing.assert_array_equal(export.weights[key], array)
    of_the_cluster = run.config.rollout.model_copy(update={"address": None})
    assert export.config == run.config.model_copy(update={"rollout": of_the_cluster})
    assert export.spaces == run.spaces


def test_spaces_of_another_task_are_refused_as_for_a_run(exports: dict[str, Path]) -> None:
    env = make_vec("CartPole-v1", 1)
    with pytest.raises(UserError, match="trained on Dict"):
        ExportedActors(exports["q-learning"])(env.single_observation_space, env.single_action_space)


def test_the_manifest_lists_every_file_with_its_size_and_checksum(
    exports: dict[str, Path],
) -> None:
    for folder in exports.values():
        manifest, contents = check_files(folder)
        files = read(folder)
        del files["manifest.json"]
        assert manifest.files == {name: facts_of(content) for name, content in files.items()}
        assert contents == {name: files[name] for name in ("config.yaml", "model.safetensors")}
        assert is_export(folder)


def test_the_manifest_says_what_was_exported(
    runs: dict[str, RunFolder], exports: dict[str, Path]
) -> None:
    manifest, _ = check_files(exports["ppo-gru"])
    assert (manifest.run_id, manifest.agent) == ("ppo-gru", "ppo-gru")
    assert (manifest.checkpoint, manifest.agent_steps) == ("step-000000000320", 320)
    assert manifest.config_hash == runs["ppo-gru"].manifest["config_hash"]


@pytest.mark.parametrize("name", ["ppo-gru", "q-learning", "paint"])
def test_two_exports_of_a_run_are_equal_byte_for_byte(
    name: str, runs: dict[str, RunFolder], exports: dict[str, Path], tmp_path: Path
) -> None:
    again = write_export(runs[name], tmp_path / name).path
    assert read(again) == read(exports[name])


def test_an_export_from_another_process_has_the_same_bytes(
    runs: dict[str, RunFolder], exports: dict[str, Path], tmp_path: Path
) -> None:
    program = (
        "import sys, typer; from palaestra.runs.cli.export import export; "
        "app = typer.Typer(); app.command()(export); "
        "heavy = {'torch', 'matplotlib', 'safetensors', 'ray'} & set(sys.modules); "
        "assert not heavy, heavy; app()"
    )
    run, out = str(runs["ppo-gru"].path), str(tmp_path / "ppo-gru")
    done = subprocess.run(
        [sys.executable, "-c", program, run, "--out", out, "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["path"] == out
    assert read(Path(out)) == read(exports["ppo-gru"])


def test_the_address_of_the_cluster_stays_at_home(exports: dict[str, Path]) -> None:
    assert not any(b"10.1.2.3" in content for content in read(exports["ppo-gru"]).values())


def test_results_hold_every_evaluation_with_its_seeds(
    runs: dict[str, RunFolder], exports: dict[str, Path]
) -> None:
    results = json.loads((exports["ppo-gru"] / "results.json").read_text())
    by_agent = {e["agent"]: e for e in results["evaluations"]}
    assert {name: e["trained"] for name, e in by_agent.items()} == {"ppo-gru": True, "ucb": False}
    path = runs["ppo-gru"].path / "eval" / "bandit-320" / "ppo-gru" / "summary.json"
    summary, own = json.loads(path.read_text()), by_agent["ppo-gru"]
    assert own["agent_steps"] == 320
    for key in ("mode", "seeds", "versions", "intervals", "aggregate", "warnings"):
        assert own[key] == summary[key]
    for mine, theirs in zip(own["tasks"], summary["tasks"], strict=True):
        assert mine["score"] == theirs["score"]
        assert len(mine["score"]["by_seed"]) == 2
        assert mine["episodes"] == 3
        assert "trace" not in mine
    training = results["training"]
    assert (training["seed"], training["agent_steps"], training["status"]) == (0, 320, "succeeded")
    assert training["wall_seconds"] > 0


def test_the_front_matter_is_yaml_that_a_hub_reads(exports: dict[str, Path]) -> None:
    front = front_matter(exports["ppo-gru"])
    assert front["library_name"] == "palaestra"
    assert {"reinforcement-learning", "palaestra/GaussianBandit-v0", "ppo", "gru"} <= set(
        front["tags"]
    )
    (model,) = front["model-index"]
    assert model["name"] == "ppo-gru"
    results = json.loads((exports["ppo-gru"] / "results.json").read_text())
    (own,) = (e for e in results["evaluations"] if e["trained"])
    for entry, task in zip(model["results"], own["tasks"], strict=True):
        assert entry["task"]["type"] == "reinforcement-learning"
        assert entry["dataset"] == {"name": task["id"], "type": task["env_id"]}
        metrics = {m["type"]: m["value"] for m in entry["metrics"]}
        assert metrics == {
            "mean_reward": task["metrics"]["return"]["mean"],
            "score": task["score"]["mean"],
        }


def test_a_card_without_evaluation_has_no_index_and_says_so(exports: dict[str, Path]) -> None:
    assert "model-index" not in front_matter(exports["ppo-mlp"])
    assert "were not evaluated" in (exports["ppo-mlp"] / "README.md").read_text()


def test_the_card_shows_the_result_beside_the_baseline_and_warns(exports: dict[str, Path]) -> None:
    text = (exports["ppo-gru"] / "README.md").read_text()
    rows = [
        line.split(" | ")
        for line in text.splitlines()
        if line.startswith("| ") and "---" not in line
    ]
    assert rows[0][:3] == ["| task", "agent", "intervals over"]
    assert [row[0] for row in rows[1:] if row[0] != "| "] == [
        "| k5-normal-1",
        "| k5-normal-3",
        "| all tasks",
    ]
    assert [row[1] for row in rows[1:]].count("**ppo-gru**") == 3
    assert [row[1] for row in rows[1:]].count("ucb") == 3
    assert {len(row) for row in rows} == {len(rows[0])}
    assert "Policy mode: sample" in text
    assert "Warning: Suite bandit: 2 evaluation seeds" in text
    assert "palaestra evaluate ppo-gru --suite bandit" in text


@pytest.mark.parametrize("name", ["ppo-gru", "ppo-mlp", "q-learning", "paint"])
def test_the_actions_of_a_replay_give_its_rewards_and_observations_again(
    name: str, exports: dict[str, Path]
) -> None:
    config = config_of(name).env
    rows = replayed(exports[name])
    assert {row["episode"] for row in rows} == {0, 1, 2}
    env = make_vec(config.id, 1, config.wrappers, **config.options)
    for row in rows:
        assert row["env_id"] == config.id
        if row["t"] == 0:
            observation, _ = reset_rows(env, [row["seed"]])
        plain = (
            {key: part[0].tolist() for key, part in observation.items()}
            if isinstance(observation, dict)
            else observation[0].tolist()
        )
        assert plain == row["observation"]
        action = np.array([row["action"]], env.single_action_space.dtype)
        observation, reward, terminated, truncated, _ = env.step(action)
        assert (reward[0], terminated[0], truncated[0]) == (
            row["reward"],
            row["terminated"],
            row["truncated"],
        )
        assert ("final_observation" in row) == (row["terminated"] or row["truncated"])


def test_a_bandit_is_drawn_step_by_step(exports: dict[str, Path]) -> None:
    with Image.open(exports["ppo-gru"] / "replay.png") as image:
        assert image.format == "PNG"
        assert image.width > 600


def test_a_game_is_drawn_move_by_move(exports: dict[str, Path]) -> None:
    rows = replayed(exports["q-learning"])
    stones = sum(
        sum(square != 0 for square in row["final_observation"]["observation"])
        for row in rows
        if row["terminated"]
    )
    with Image.open(exports["q-learning"] / "replay.gif") as image:
        assert image.n_frames == stones + 3  # and three empty boards


def test_frames_are_those_of_the_first_episode(exports: dict[str, Path]) -> None:
    with Image.open(exports["paint"] / "replay.gif") as image:
        assert image.n_frames == 5
        assert image.size == (320, 32)
        image.seek(2)
        red, green, _ = image.convert("RGB").getpixel((2 * 64 + 16, 16))
        assert red > 150 > green


def test_an_environment_that_cannot_draw_is_noted_and_exported(
    runs: dict[str, RunFolder], tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run", dict(runs["paint"].manifest))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(runs["paint"].checkpoints)
    broken = config_of("paint", env={"id": "tests/Paint-v0", "options": {"broken": True}})
    folder.write_config(broken)
    folder.update_manifest()
    export = write_export(folder, tmp_path / "out")
    assert export.notes == ["No picture: the environment could not draw itself (no screen)."]
    assert "no screen" in (export.path / "README.md").read_text()
    assert not list(export.path.glob("replay.gif"))
    assert len(replayed(export.path)) == 15


def test_the_default_place_is_named_after_agent_and_environment(
    runs: dict[str, RunFolder], tmp_path: Path
) -> None:
    export = write_export(runs["q-learning"], episodes=1)
    assert export.path == (runs["q-learning"].path / "export" / "q-learning-TicTacToe-v0")
    assert [p.name for p in export.path.parent.iterdir()] == [export.path.name]
    assert {row["episode"] for row in replayed(export.path)} == {0}


def test_a_name_with_strokes_still_names_one_folder() -> None:
    assert export_name("sb3/dqn", "palaestra/GaussianBandit-v0") == "sb3-dqn-GaussianBandit-v0"


def test_an_export_is_replaced_only_when_asked(runs: dict[str, RunFolder], tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_export(runs["paint"], out, episodes=1)
    before = read(out)
    with pytest.raises(UserError, match="--force replaces it"):
        write_export(runs["paint"], out, episodes=2)
    assert read(out) == before
    write_export(runs["paint"], out, episodes=2, force=True)
    assert {row["episode"] for row in replayed(out)} == {0, 1}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_is_no_export_is_never_replaced(runs: dict[str, RunFolder], tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("ten years")
    with pytest.raises(UserError, match="never replaced"):
        write_export(runs["paint"], tmp_path / "home", force=True)
    assert (tmp_path / "home" / "thesis.tex").read_text() == "ten years"


def test_an_unknown_checkpoint_and_an_export_of_an_export_are_refused(
    runs: dict[str, RunFolder], exports: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="no checkpoint 'step-000000000001'"):
        write_export(runs["paint"], tmp_path / "out", checkpoint="step-000000000001")
    with pytest.raises(UserError, match="this is an export already"):
        write_export(RunFolder(exports["paint"], {}), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(
    runs: dict[str, RunFolder], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="could not be written"):
        write_export(runs["paint"], tmp_path / "file" / "out", episodes=1)
