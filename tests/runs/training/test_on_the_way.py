"""What happens on the way through a run: lines, evaluations, the best checkpoint, early ends."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palaestra.errors import UserError
from palaestra.runs.config import RunConfig, resolve
from palaestra.runs.evaluation.recorded import read_recorded
from palaestra.runs.evaluation.run import evaluate_run, evaluate_weights
from palaestra.runs.store.checkpoints import Checkpoints
from palaestra.runs.store.folder import RunFolder
from palaestra.runs.store.record import RunRecord
from palaestra.runs.training import train
from palaestra.runs.training.stopping import StopRules
from tests.runs.survival import config_of

EVALUATED = ["evaluation={suite: tictactoe, tasks: [random-first], episodes: 8, seeds: 2}"]


def run(root: Path, *overrides: str, run_id: str = "run", **options: Any) -> RunFolder:
    config = config_of("q-learning", "total_steps=640", *overrides)
    return train(config, run_id, root=root, quiet=True, evaluator=evaluate_weights, **options)


def lines(folder: RunFolder) -> list[dict[str, Any]]:
    text = (folder.path / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_lines_of_metrics_are_so_many_agent_steps_apart(tmp_path: Path) -> None:
    folder = run(tmp_path, "log_every=100")
    steps = [line["agent_steps"] for line in lines(folder)]
    assert steps == [128, 224, 320, 416, 512, 608, 640]


def test_metrics_of_updates_are_means_since_the_last_line(tmp_path: Path) -> None:
    every = lines(run(tmp_path, "log_every=1", run_id="every"))
    fifth = lines(run(tmp_path, "log_every=160", run_id="fifth"))
    errors = [line["train/td_error"] for line in every]
    expected = [np.mean(errors[i : i + 5]) for i in range(0, 20, 5)]
    np.testing.assert_allclose([line["train/td_error"] for line in fifth], expected)


def test_evaluation_during_training_leaves_the_run_as_it_would_be_without(tmp_path: Path) -> None:
    plain = run(tmp_path, run_id="plain")
    folder = run(tmp_path, *EVALUATED, "evaluation.every=200", run_id="evaluated")
    record = RunRecord(folder.path)
    assert [item.step for item in record.evaluations()] == [224, 416, 608]
    found = [line for line in lines(folder) if "evaluation/score" in line]
    assert [line["agent_steps"] for line in found] == [224, 416, 608]
    for one, other in zip(lines(plain), lines(folder), strict=True):
        assert one["train/td_error"] == other["train/td_error"]
    weights = [Checkpoints(f.checkpoints).read(None, ("actor",)) for f in (plain, folder)]
    np.testing.assert_array_equal(weights[0]["actor"]["q"], weights[1]["actor"]["q"])


def test_an_evaluation_on_the_way_is_that_of_the_checkpoint_at_this_step(tmp_path: Path) -> None:
    folder = run(tmp_path, *EVALUATED, "evaluation.every=640", "checkpoint.every=640")
    (on_the_way,) = RunRecord(folder.path).evaluations()
    wanted = folder.config().evaluation
    assert wanted is not None
    (after,) = evaluate_run(folder, wanted)
    assert on_the_way.summary["tasks"] == json.loads(json.dumps(after.to_json()))["tasks"]


@pytest.mark.parametrize("every", [64, 300, 640])
def test_the_best_checkpoint_is_chosen_by_evaluation(tmp_path: Path, every: int) -> None:
    folder = run(
        tmp_path,
        *EVALUATED,
        "evaluation.every=64",
        f"checkpoint.every={every}",
        "checkpoint.keep_last=1",
    )
    scores = {
        line["agent_steps"]: line["evaluation/score"]
        for line in lines(folder)
        if "evaluation/score" in line
    }
    best = max(scores, key=lambda step: (scores[step], -step))
    assert Checkpoints(folder.checkpoints).best == f"step-{best:012d}"


def test_an_evaluation_without_an_evaluator_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    config = config_of("q-learning", *EVALUATED, "evaluation.every=64")
    with pytest.raises(UserError, match=r"evaluation\.every: 64 needs an evaluator"):
        train(config, "run", root=tmp_path, quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_run_ends_where_its_target_is_reached(tmp_path: Path) -> None:
    folder = run(tmp_path, "stop={metric: train/visited_share, target: 1e-6}", "log_every=64")
    assert folder.manifest["status"] == "succeeded"
    assert folder.manifest["agent_steps"] == 64
    assert "target reached: train/visited_share" in folder.manifest["ended_by"]
    again = run(
        tmp_path, "stop={metric: train/visited_share, target: 1e-6}", "log_every=64", resume="must"
    )
    assert again.manifest["agent_steps"] == 64
    assert len(again.manifest["attempts"]) == 1


def test_a_run_that_a_rule_has_ended_can_be_continued_without_it(tmp_path: Path) -> None:
    run(tmp_path, "stop={metric: train/visited_share, target: 1e-6}", "log_every=64")
    folder = run(tmp_path, "log_every=64", resume="must", override_config=True)
    straight = run(tmp_path, "log_every=64", run_id="straight")
    weights = [Checkpoints(f.checkpoints).read(None, ("actor",)) for f in (folder, straight)]
    np.testing.assert_array_equal(weights[0]["actor"]["q"], weights[1]["actor"]["q"])


def rules(**options: Any) -> StopRules:
    raw = config_of("q-learning").model_dump(mode="json") | {"stop": options}
    config: RunConfig = resolve(raw)
    assert config.stop is not None
    return StopRules(config.stop)


def test_no_progress_counts_from_the_best_value_also_after_a_resume() -> None:
    watched = rules(metric="x", patience=30)
    for step, value in ((10, 1.0), (20, 3.0), (30, 2.0), (40, 3.0)):
        watched.see({"x": value}, step)
        assert not watched.reason(0)
    resumed = rules(metric="x", patience=30)
    resumed.load_state_dict(watched.state_dict(5.0))
    for one in (watched, resumed):
        one.see({"y": 9.0}, 45)
        assert not one.reason(0)
        one.see({"x": 2.9}, 50)
        assert "no progress: x has been no better than 3 for 30 agent steps" in one.reason(0)


def test_smaller_is_better_where_that_is_said() -> None:
    watched = rules(metric="x", better="min", target=0.5)
    watched.see({"x": 0.6}, 1)
    assert not watched.reason(0)
    watched.see({"x": 0.5}, 2)
    assert "target reached" in watched.reason(0)


def test_time_is_that_of_all_attempts() -> None:
    watched = rules(hours=1.0)
    assert not watched.reason(3599)
    resumed = rules(hours=1.0)
    resumed.load_state_dict(watched.state_dict(3000))
    assert not resumed.reason(599)
    assert "time is up: 1 hours" in resumed.reason(601)


def test_observations_are_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    folder = run(tmp_path, *EVALUATED, "evaluation.record.episodes=3")
    wanted = folder.config().evaluation
    assert wanted is not None
    evaluate_run(folder, wanted)
    (path,) = (folder.path / "eval").glob("*/*/recorded-*.safetensors")
    episodes = read_recorded(path)
    shown = episodes.observations["observation"]
    assert shown.shape[0] == len(episodes.length) == 3
    assert shown.shape[1] == episodes.action.shape[1] + 1
    assert not shown[:, 0].any() or (shown[:, 0] != 0).sum() <= 3  # the board is empty, or nearly
    for e, length in enumerate(episodes.length):  # one square more of each player's at each step
        filled = (shown[e, : length + 1] != 0).sum(-1)
        assert (np.diff(filled) >= 1).all()


def test_the_best_in_the_environment_of_training_is_that_of_the_best_return(tmp_path: Path) -> None:
    folder = run(
        tmp_path,
        "evaluation={every: 64, episodes: 4, seeds: 2}",
        "checkpoint.every=64",
        "checkpoint.keep_last=1",
    )
    found = {
        line["agent_steps"]: line["evaluation/return"]
        for line in lines(folder)
        if "evaluation/return" in line
    }
    assert not any("evaluation/score" in line for line in lines(folder))
    best = max(found, key=lambda step: (found[step], -step))
    assert Checkpoints(folder.checkpoints).best == f"step-{best:012d}"
