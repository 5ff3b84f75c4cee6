"""Strength of the tree search, against known results of a thousand games and fewer."""

import numpy as np
import pytest

from palaestra.envs.tictactoe.mcts import most_visited, search
from palaestra.envs.tictactoe.rules import encode
from palaestra.envs.tictactoe.vector import TicTacToeVectorEnv

# Mean return of a search with n simulations against perfect play, and how many games told it.
AS_FIRST = {10: -0.55, 25: -0.19, 50: -0.01, 100: -0.01, 200: 0, 500: 0, 1000: 0}
AS_SECOND = {10: -0.91, 25: -0.76, 50: -0.62, 100: -0.48, 200: -0.32, 500: -0.11, 1000: -0.01}
GAMES = {10: 600, 25: 600, 50: 600, 100: 600, 200: 100, 500: 100, 1000: 100}


def play(n: int, games: int, opponent: str, first: str) -> tuple[np.ndarray, float]:
    """Return the results of a search with n simulations, and its blunders per decision."""
    envs = TicTacToeVectorEnv(games, opponent=opponent, first=first)
    shown, info = envs.reset(seed=0)
    rng = np.random.default_rng(1)
    result, playing = np.zeros(games), np.ones(games, bool)
    blunders = decisions = 0
    while playing.any():
        keys = rng.integers(2**64, size=games, dtype=np.uint64)
        actions = most_visited(search(encode(shown), keys, n, 2**0.5), keys)
        shown, reward, over, _, info = envs.step(actions)
        result += np.where(playing, reward, 0)
        blunders += (info["blunder"] & playing).sum()
        decisions += playing.sum()
        playing &= ~over
    return result, blunders / decisions


@pytest.mark.parametrize(
    "n", [n if n < 500 else pytest.param(n, marks=pytest.mark.slow) for n in GAMES]
)
def test_returns_against_perfect_play(n: int) -> None:
    for first, table in (("agent", AS_FIRST), ("opponent", AS_SECOND)):
        result, _ = play(n, GAMES[n], "minimax", first)
        # Results are 0 or -1, so the mean tells the variance; two decimals are on record.
        variance = -table[n] * (1 + table[n])
        error = np.sqrt((variance + result.var()) / GAMES[n])
        assert abs(result.mean() - table[n]) < 4 * error + 0.005


@pytest.mark.slow
def test_a_thousand_simulations_are_near_perfect() -> None:
    rates = [play(1000, 200, "random", first)[1] for first in ("agent", "opponent")]
    # About 700 decisions on each side; .003 is on record for both together.
    assert np.mean(rates) < 0.003 + 4 * np.sqrt(0.003 / 1400)
