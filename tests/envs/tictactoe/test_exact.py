"""The match-up table of uniform, perfect and half-random perfect play, by exact evaluation."""

import numpy as np
import pytest

from palaestra.envs.tictactoe import exact
from palaestra.envs.tictactoe.rules import LEGAL, OVER, POWERS
from palaestra.envs.tictactoe.solver import solve

OPTIMAL = LEGAL & ~solve().blunder
POLICIES = {
    "uniform": exact.uniform_over(LEGAL),
    "perfect": exact.uniform_over(OPTIMAL),
    "lowest": exact.lowest_of(OPTIMAL),
}
POLICIES["noisy"] = 0.5 * POLICIES["uniform"] + 0.5 * POLICIES["perfect"]


@pytest.mark.parametrize(
    ("first", "second", "first_wins", "second_wins", "draws"),
    [
        ("uniform", "uniform", 0.5849, 0.2881, 0.1270),
        ("perfect", "uniform", 0.9678, 0, 0.0322),
        ("lowest", "uniform", 0.9948, 0, 0.0052),
        ("uniform", "perfect", 0, 0.7775, 0.2225),
        ("uniform", "lowest", 0, 0.8063, 0.1937),
        ("perfect", "noisy", 0.7314, 0, 0.2686),
        ("noisy", "perfect", 0, 0.4660, 0.5340),
        ("uniform", "noisy", 0.2994, 0.5167, 0.1840),
        ("perfect", "perfect", 0, 0, 1),
    ],
)
def test_match_ups(
    first: str, second: str, first_wins: float, second_wins: float, draws: float
) -> None:
    win, draw, loss = exact.outcomes(POLICIES[first], POLICIES[second])[0]
    assert (win, loss, draw) == pytest.approx((first_wins, second_wins, draws), abs=5e-5)


@pytest.mark.parametrize(
    ("policy", "first", "second"),
    [("uniform", 0.9948, 0.9249), ("noisy", 0.7949, 0.5921), ("perfect", 0, 0)],
)
def test_best_responses(policy: str, first: float, second: float) -> None:
    reply = exact.best_response(POLICIES[policy])
    assert reply[0] == pytest.approx(first, abs=5e-5)
    openings = POLICIES[policy][0] @ reply[2 * POWERS]
    assert openings == pytest.approx(second, abs=5e-5)


@pytest.mark.parametrize(
    ("first", "second", "by_first", "by_second"),
    [
        ("uniform", "uniform", 4.17, 3.46),
        ("perfect", "uniform", 3.85, 2.85),
        ("perfect", "perfect", 5, 4),
    ],
)
def test_decisions_per_game(first: str, second: str, by_first: float, by_second: float) -> None:
    reach = exact.reach(POLICIES[first], POLICIES[second])
    decisions = [side[~OVER].sum() for side in reach]
    assert decisions == pytest.approx([by_first, by_second], abs=0.005)


@pytest.mark.parametrize(("side", "rate", "possible"), [(0, 0.3179, 0.5776), (1, 0.5225, 0.6589)])
def test_blunders_of_uniform_play(side: int, rate: float, possible: float) -> None:
    uniform, solution = POLICIES["uniform"], solve()
    decisions = exact.reach(uniform, uniform)[side] * ~OVER
    blunders = (decisions[:, None] * uniform * solution.blunder).sum()
    assert blunders / decisions.sum() == pytest.approx(rate, abs=6e-4)
    assert blunders / decisions[solution.blunder_possible].sum() == pytest.approx(
        possible, abs=6e-4
    )


def test_games_reach_the_end_with_probability_one() -> None:
    reach = exact.reach(POLICIES["uniform"], POLICIES["noisy"])
    assert reach.first[OVER].sum() + reach.second[OVER].sum() == pytest.approx(1)


def test_a_best_response_to_a_policy_is_at_least_as_good_as_any_policy() -> None:
    for opponent in POLICIES.values():
        best = exact.best_response(opponent)
        for policy in POLICIES.values():
            win, _, loss = exact.outcomes(policy, opponent).T
            # 1e-12: rounding of sums of at most nine probabilities over nine levels.
            assert (win - loss <= best + 1e-12).all()
            assert np.isfinite(best).all()
