"""What the verbs decide: which spaces a trained agent can read, how a thing is summed up."""

from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from palaestra.errors import UserError
from palaestra.runs.cli.app import summary_of
from palaestra.runs.cli.verbs import train_and_report
from palaestra.runs.config import load_config
from palaestra.runs.evaluation.actors import BaselineActors, same_layout
from palaestra.runs.store.record import RunRecord


def box(high: float, width: int = 3, dtype: type = np.float32) -> spaces.Box:
    return spaces.Box(0, high, (width,), dtype)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (box(1), box(5), True),
        (box(1), box(1, 4), False),
        (box(1), box(1, dtype=np.float64), False),
        (spaces.Discrete(3), spaces.Discrete(3), True),
        (spaces.Discrete(3), spaces.Discrete(4), False),
        (spaces.Dict(a=box(1)), spaces.Dict(a=box(2)), True),
        (spaces.Dict(a=box(1)), spaces.Dict(b=box(1)), False),
        (spaces.Dict(a=box(1)), box(1), False),
    ],
)
def test_layouts_differ_in_everything_but_the_bounds_of_a_box(
    one: gymnasium.Space, other: gymnasium.Space, same: bool
) -> None:
    assert same_layout(one, other) is same


def test_a_thing_is_summed_up_by_its_own_words_before_its_docstring() -> None:
    class Metric:
        """A class of metrics."""

        meaning = "share of steps on the best arm"

    assert summary_of({"description": "trains quickly"}) == "trains quickly"
    assert summary_of(Metric()) == "share of steps on the best arm"
    assert summary_of(box) == ""


def test_an_agent_that_has_to_be_trained_is_no_baseline() -> None:
    with pytest.raises(UserError, match="'ppo' has to be trained first"):
        BaselineActors("ppo")


TINY = (
    *("total_steps=200", "env.num_envs=4", "policy.hidden_size=8", "agent.minibatch_size=200"),
    *("tensorboard=false", "evaluation.seeds=2", "evaluation.episodes=2"),
    "evaluation.baselines=[random]",
)


def test_a_cut_report_is_made_again_and_an_extended_run_is_evaluated_and_reported_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config("demo", TINY)
    assert train_and_report(config, "r", as_json=False) == 0
    page = Path("runs/r/report.html")
    whole = page.read_bytes()
    evaluated = {f: f.stat().st_ino for f in Path("runs/r/eval").rglob("summary.json")}
    assert len(evaluated) == 2
    page.write_bytes(whole[: len(whole) // 2])
    assert train_and_report(config, "r", as_json=False, resume="auto") == 0
    assert page.read_bytes() == whole
    assert {f: f.stat().st_ino for f in evaluated} == evaluated
    capsys.readouterr()
    assert train_and_report(config, "r", as_json=False, resume="auto") == 0
    assert "nothing left to do" in capsys.readouterr().err
    longer = load_config("demo", [*TINY, "total_steps=400"])
    override = {"resume": "must", "override_config": True}
    assert train_and_report(longer, "r", as_json=False, **override) == 0
    assert RunRecord.open("r").is_complete(longer)
    assert page.read_bytes() != whole
