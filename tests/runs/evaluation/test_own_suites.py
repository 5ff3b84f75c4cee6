"""Evaluation on the environment of training, and on suites from files."""

import json
from pathlib import Path

import pytest

from palaestra.errors import UserError
from palaestra.runs.config import EnvConfig, find_suite
from palaestra.runs.evaluation import baseline, evaluate

SUITE = """
description: two poles
tasks:
  - {id: short, env: CartPole-v1, options: {max_episode_steps: 20}, episodes: 4, low: 0, high: 20}
  - {id: bandit, env: palaestra/GaussianBandit-v0, options: {K: 2, T: 5}, mode: sample}
"""


def test_without_a_suite_the_environment_of_training_is_played() -> None:
    env = EnvConfig(id="CartPole-v1", options={"max_episode_steps": 30})
    suite = find_suite(None, env)
    assert [task.id for task in suite.select()] == ["training-environment/CartPole-v1"]
    found = evaluate(baseline("random"), suite, seeds=3, episodes=4, repetitions=100)
    (result,) = found.tasks
    assert 5 < result.metrics["return"].mean.value < 30
    data = json.loads(json.dumps(found.to_json()))  # no bounds are known, so there is no score
    assert data["tasks"][0]["score"]["mean"] is None
    assert data["aggregate"]["iqm"]["value"] is None


def test_a_suite_from_a_file_is_played_as_one_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(SUITE)
    suite = find_suite(str(path))
    assert suite.name == "mine"
    assert [task.id for task in suite.select()] == ["mine/short", "mine/bandit"]
    found = evaluate(baseline("random"), suite, seeds=2, tasks=["short"], repetitions=100)
    assert 0 < found.task("mine/short").score.mean.value <= 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tasks: []", "tasks"),
        ("tasks: [{id: a}]", "tasks.0.env: required but not given"),
        ("tasks: [{id: a, env: CartPole-v1, epsiodes: 3}]", "did you mean 'episodes'"),
        ("tasks: [{id: a, env: CartPole-v1, mode: best}]", "'best' is not accepted"),
        ("[1, 2]", "a mapping of keys is expected"),
    ],
)
def test_what_is_wrong_with_a_suite_file_is_said(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message.replace("[", r"\[").replace(".", r"\.")):
        find_suite(str(path))


def test_a_suite_file_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"suite file 'nowhere\.yaml' does not exist"):
        find_suite("nowhere.yaml")


def test_without_a_run_a_suite_is_needed() -> None:
    with pytest.raises(UserError, match="--suite is needed"):
        find_suite(None)
