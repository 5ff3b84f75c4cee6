"""The exact solution of Tic-tac-toe, by backward induction over all boards at once.

Every board counts as "the player who sees it is to move", whether or not play from the empty board
can reach it, so a game with a lost turn stays solved too.
"""

from dataclasses import dataclass
from functools import cache

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
    pack,
)

_FASTEST = SQUARES + 1
"""Depth-weighted value of a game just won; each ply before the end takes one off."""


@dataclass(frozen=True)
class Solution:
    """What perfect play achieves, for the player to move on each board."""

    value: np.ndarray
    """int8 `[BOARDS]`: +1 win, 0 draw, -1 loss."""
    move_value: np.ndarray
    """int8 `[BOARDS, 9]`: value after each move; -2 where the move is illegal."""
    blunder: np.ndarray
    """bool `[BOARDS, 9]`: legal moves that lower the value."""
    blunder_possible: np.ndarray
    """bool `[BOARDS]`: some legal move is a blunder."""
    optimal: np.ndarray
    """int64 `[BOARDS]`: the set of moves that keep the value."""
    fastest: np.ndarray
    """int64 `[BOARDS]`: those of them that win soonest or lose latest."""


@cache
def solve() -> Solution:
    """Return the solution; computed once in each process, in some ten milliseconds."""
    value, move_value = _induct(1, decay=0)
    weighted, weighted_moves = _induct(_FASTEST, decay=1)
    blunder = LEGAL & (move_value < value[:, None])
    return Solution(
        value=value,
        move_value=np.where(LEGAL, move_value, -2).astype(np.int8),
        blunder=blunder,
        blunder_possible=blunder.any(axis=1),
        optimal=pack(LEGAL & ~blunder),
        fastest=pack(LEGAL & (weighted_moves == weighted[:, None])),
    )


def _induct(win: int, decay: int) -> tuple[np.ndarray, np.ndarray]:
    """Minimax with wins worth `win`, nearer to zero by `decay` for each ply before the end."""
    value = (win * (OWN_LINE.astype(np.int8) - OTHER_LINE)).astype(np.int8)
    move_value = np.full((BOARDS, SQUARES), -win - 1, np.int8)
    for stones in range(SQUARES - 1, -1, -1):
        codes, squares = np.nonzero(LEGAL & (stones == STONES)[:, None])
        child = value[SWAP[codes + POWERS[squares]]]
        move_value[codes, squares] = -(child - decay * np.sign(child))
        level = np.flatnonzero(~OVER & (stones == STONES))
        value[level] = move_value[level].max(axis=1)
    return value, move_value
