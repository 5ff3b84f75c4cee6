import numpy as np
import pytest

from palaestra.experience.episodes import Episodes
from palaestra.metrics import outcomes

GAMES = Episodes(
    np.zeros((3, 4), int),
    np.array([[0, 0, 0, 1.0], [0, -1, 0, 0], [0, 0, 0, 0]]),
    np.array([4, 2, 3]),
    9,
    {
        "result": np.zeros((3, 4)),
        "blunder": np.array([[0, 1, 0, 0], [1, 0, 1, 1], [0, 0, 0, 1]], float),
        "blunder_possible": np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]], float),
    },
)


def test_outcomes_are_the_signs_of_the_returns() -> None:
    assert outcomes.WIN(GAMES).tolist() == [1, 0, 0]
    assert outcomes.LOSS(GAMES).tolist() == [0, 1, 0]
    assert outcomes.DRAW(GAMES).tolist() == [0, 0, 1]


def test_both_denominators_of_the_blunder_rate_leave_out_the_padding() -> None:
    rate, weight = outcomes.BLUNDER_RATE(GAMES), outcomes.BLUNDER_RATE.weights(GAMES)
    assert np.average(rate, weights=weight) == pytest.approx(2 / 9)
    assert outcomes.BLUNDER_RATE_POSSIBLE.weights(GAMES).tolist() == [2, 2, 0]
    assert outcomes.BLUNDER_RATE_POSSIBLE(GAMES)[:2].tolist() == [0.5, 0.5]
    assert np.isnan(outcomes.BLUNDER_RATE_POSSIBLE(GAMES)[2])
