"""Exact evaluation of memoryless policies against each other, by dynamic programming.

A policy is float64 `[BOARDS, 9]`: on each board, seen by the player to move, a distribution over
the legal moves (zero on finished boards).
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from palaestra.envs.tictactoe.rules import (
    BOARDS,
    LEGAL,
    OTHER_LINE,
    OVER,
    OWN_LINE,
    POWERS,
    SQUARES,
    STONES,
    SWAP,
)


class Reach(NamedTuple):
    """Probability that each board comes up for the player who is to move on it, `[BOARDS]`."""

    first: np.ndarray
    second: np.ndarray


def uniform_over(moves: np.ndarray) -> np.ndarray:
    """Return the policy that is uniform over bool `[BOARDS, 9]`."""
    result: np.ndarray = moves / np.maximum(moves.sum(axis=1, keepdims=True), 1)
    return result


def lowest_of(moves: np.ndarray) -> np.ndarray:
    """Return the policy that takes the lowest square of bool `[BOARDS, 9]`."""
    result: np.ndarray = (moves & (moves.cumsum(axis=1) == 1)).astype(float)
    return result


def outcomes(mover: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return P(win), P(draw), P(loss) of the player to move on each board, `[BOARDS, 3]`."""
    results = [_final_outcomes(), _final_outcomes()]
    for codes, children in _levels():
        after = [result[children][..., ::-1] for result in results]
        for player, policy in enumerate((mover, other)):
            results[player][codes] = np.einsum("bs,bso->bo", policy[codes], after[1 - player])
    return results[0]


def best_response(policy: np.ndarray) -> np.ndarray:
    """Return what the best reply to `policy` earns when it is to move on each board, `[BOARDS]`."""
    mine = (_final_outcomes() @ [1, 0, -1]).astype(float)
    theirs = mine.copy()
    for codes, children in _levels():
        legal = LEGAL[codes]
        ours = np.where(legal, -theirs[children], -np.inf).max(axis=1)
        theirs[codes] = -(policy[codes] * mine[children]).sum(axis=1)
        mine[codes] = ours
    return mine


def reach(first: np.ndarray, second: np.ndarray) -> Reach:
    """Return how probable each board is in a game from the empty board."""
    probability = np.zeros((2, BOARDS))
    probability[0, 0] = 1
    for codes, children in reversed(list(_levels())):
        for player, policy in enumerate((first, second)):
            mass = probability[player, codes, None] * policy[codes]
            np.add.at(probability[1 - player], children[LEGAL[codes]], mass[LEGAL[codes]])
    return Reach(probability[0], probability[1])


@cache
def uniform_outcomes() -> np.ndarray:
    """Return the outcomes of uniform play by both players, `[BOARDS, 3]`."""
    uniform = uniform_over(LEGAL)
    return outcomes(uniform, uniform)


def _final_outcomes() -> np.ndarray:
    """Return the outcomes of finished boards for the player to move; zero elsewhere."""
    draw = OVER & ~OWN_LINE & ~OTHER_LINE
    return np.stack([OWN_LINE & ~OTHER_LINE, draw, OTHER_LINE], axis=1).astype(float)


@cache
def _levels() -> list[tuple[np.ndarray, np.ndarray]]:
    """Return, from the fullest level down, unfinished boards and their children `[B, 9]`.

    A child is seen by its own player to move; where the move is illegal it is a placeholder.
    """
    levels = []
    for stones in range(SQUARES - 1, -1, -1):
        codes = np.flatnonzero(~OVER & (stones == STONES))
        moved = np.where(LEGAL[codes], codes[:, None] + POWERS, 0)
        levels.append((codes, SWAP[moved]))
    return levels
