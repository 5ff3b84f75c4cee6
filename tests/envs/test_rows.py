"""What vector environments tell in infos and metadata."""

from typing import Any

import numpy as np
import pytest

from palaestra.envs import make_vec
from palaestra.envs.rows import (
    deciding,
    durations,
    episode_infos,
    final_rows,
    put_final,
    summed_infos,
)
from palaestra.errors import UserError


class Told:
    """An environment that says what a record holds."""

    def __init__(self, **metadata: Any) -> None:
        self.metadata = metadata


def test_infos_of_an_episode_are_sums_or_last_ones() -> None:
    env: Any = Told(episode_infos={"regret": "sum", "task": "last"})
    assert episode_infos(env) == {"regret": "sum", "task": "last"}
    assert summed_infos(env) == ("regret",)


def test_the_older_names_of_sums_are_read_too() -> None:
    assert episode_infos(Told(episode_sums=("a", "b"))) == {"a": "sum", "b": "sum"}  # type: ignore[arg-type]
    assert episode_infos(Told()) == {}  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"regret": "mean"}, ["regret"], "regret"])
def test_other_ways_of_recording_are_refused(wrong: Any) -> None:
    with pytest.raises(UserError, match="episode_infos"):
        episode_infos(Told(episode_infos=wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("env_id", "names"),
    [
        ("palaestra/GaussianBandit-v0", ("regret",)),
        ("palaestra/SyntheticMovies-v0", ("regret",)),
        ("palaestra/TicTacToe-v0", ("blunder", "illegal")),
        ("CartPole-v1", ()),
    ],
)
def test_our_environments_say_what_is_summed_through_any_wrapper(
    env_id: str, names: tuple[str, ...]
) -> None:
    for wrappers in ((), ("normalise-reward",), ({"name": "time-limit", "steps": 9},)):
        assert summed_infos(make_vec(env_id, 2, wrappers)) == names


def test_an_action_lasts_one_step_where_nothing_is_told() -> None:
    none = np.zeros(3, bool)
    assert durations({}, none).tolist() == [1, 1, 1]
    told = durations({"duration": np.array([4, 0, 2])}, none)  # row 1 says nothing
    assert told.tolist() == [4, 1, 2]
    assert told.dtype == np.int32


def test_the_duration_of_an_episodes_last_action_is_in_its_final_infos() -> None:
    done = np.array([False, True])
    info = {"duration": np.array([3, 0]), "final_info": {"duration": np.array([0, 5])}}
    assert durations(info, done).tolist() == [3, 5]


def test_all_rows_decide_where_nothing_is_told() -> None:
    assert deciding({}, 3).all()
    info = {"decides": np.array([True, False, False]), "_decides": np.array([True, True, False])}
    assert deciding(info, 3).tolist() == [True, False, True]
    assert deciding({"decides": np.array([True, False])}, 2).tolist() == [True, False]


@pytest.mark.parametrize("dense", [True, False])
def test_final_observations_are_replaced_in_the_form_that_they_came_in(dense: bool) -> None:
    rows, new = np.array([0, 2]), {"x": np.array([[7.0], [8.0]])}
    old: Any = {"x": np.arange(3.0)[:, None]}
    if not dense:
        old = np.array([{"x": np.array([0.0])}, None, {"x": np.array([2.0])}], object)
    info = {"final_obs": old}
    assert final_rows(info, rows)["x"].tolist() == [[0.0], [2.0]]
    put_final(info, rows, new, 3)
    assert isinstance(info["final_obs"], dict) == dense
    assert final_rows(info, rows)["x"].tolist() == [[7.0], [8.0]]
    if not dense:
        assert info["final_obs"][1] is None
