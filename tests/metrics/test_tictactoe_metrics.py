import numpy as np
import pytest

from palaestra.experience.episodes import Episodes
from palaestra.metrics.tictactoe import RETURN_FIRST, RETURN_SECOND, by_side
from palaestra.registry import registry

X = 99.0  # padding, which must not count

GAMES = Episodes(
    action=np.zeros((4, 4), int),
    reward=np.array([[0, 0, 1, X], [0, 0, 0, 0], [0, -1, X, X], [-1, X, X, X]]),
    length=np.array([3, 4, 2, 1]),
    num_actions=9,
    info={
        "result": np.array([[0, 0, 1, X], [0, 0, 0, 0], [0, -1, X, X], [-1, X, X, X]]),
        "agent_first": np.array([[1, 1, 1, X], [1] * 4, [0, 0, X, X], [0, X, X, X]]),
        "blunder": np.array([[0, 0, 0, X], [1, 0, 0, 0], [1, 1, X, X], [0, X, X, X]]),
        "blunder_possible": np.array([[0, 1, 0, X], [1, 1, 0, 0], [1, 1, X, X], [1, X, X, X]]),
        "illegal": np.array([[0, 0, 0, X], [0, 0, 0, 0], [0, 0, X, X], [1, X, X, X]]),
    },
)


def test_each_side_is_told_apart_and_shares_are_pooled_over_decisions() -> None:
    table = by_side(GAMES)
    names = ("games", "return", "win", "draw", "loss", "length")
    assert [table["first"][name] for name in names] == [2, 0.5, 0.5, 0.5, 0, 3.5]
    assert [table["second"][name] for name in names] == [2, -1, 0, 0, 1, 1.5]
    assert [table["all"][name] for name in names] == [4, -0.25, 0.25, 0.25, 0.5, 2.5]
    rates = ("blunder_rate", "blunder_rate_possible", "illegal_rate")
    assert [table["first"][name] for name in rates] == pytest.approx([1 / 7, 1 / 3, 0])
    assert [table["second"][name] for name in rates] == pytest.approx([2 / 3, 2 / 3, 1 / 3])
    assert [table["all"][name] for name in rates] == pytest.approx([3 / 10, 3 / 6, 1 / 10])


def test_a_side_that_was_never_played_is_not_a_number() -> None:
    info = {key: values[:2] for key, values in GAMES.info.items()}
    opened = Episodes(GAMES.action[:2], GAMES.reward[:2], GAMES.length[:2], 9, info)
    table = by_side(opened)
    assert table["second"].pop("games") == 0
    assert np.isnan(list(table["second"].values())).all()
    assert RETURN_FIRST.applies(opened)
    assert not RETURN_SECOND.applies(opened)


def test_returns_of_a_side_are_registered_metrics() -> None:
    first, second = (registry.get("metric", f"return_{side}") for side in ("first", "second"))
    assert first(GAMES)[:2].tolist() == [1, 0]
    assert np.isnan(first(GAMES)[2:]).all()
    assert second.weights(GAMES).tolist() == [0, 0, 1, 1]
    assert second(GAMES)[2:].tolist() == [-1, -1]
