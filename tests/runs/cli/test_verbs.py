"""What the verbs decide: which spaces a trained agent can read, how a thing is summed up."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from palaestra.errors import UserError
from palaestra.runs.cli.app import summary_of
from palaestra.runs.evaluation.actors import BaselineActors, same_layout


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
