"""Rules of Tic-tac-toe as lookup tables over all 3**9 boards.

A board is seen by one player: 0 empty, 1 own stone, 2 the other player's, squares row by row. Its
code is `sum(board[i] * 3**i)`. All functions work on arrays of codes, and every table has one row
for each code, so that thousands of games advance by a few gathers.
"""

import numpy as np

from palaestra.envs.tictactoe.streams import below

SQUARES = 9
BOARDS = 3**SQUARES
LINES = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6))

POWERS = 3 ** np.arange(SQUARES)
"""Adding `POWERS[i]` to a code puts an own stone on square i; twice that, the other's."""

DIGITS = (np.arange(BOARDS)[:, None] // POWERS % 3).astype(np.int64)
"""int64 `[BOARDS, 9]`: the squares of each board."""

SWAP = (2 * DIGITS % 3) @ POWERS
"""int64 `[BOARDS]`: the same board seen by the other player."""


def _has_line(stone: int) -> np.ndarray:
    return np.any([(DIGITS[:, line] == stone).all(axis=1) for line in LINES], axis=0)


OWN_LINE = _has_line(1)
"""bool `[BOARDS]`: three own stones in a row."""
OTHER_LINE = _has_line(2)
STONES = (DIGITS != 0).sum(axis=1)
"""int64 `[BOARDS]`: stones on the board."""
OVER = OWN_LINE | OTHER_LINE | (STONES == SQUARES)
"""bool `[BOARDS]`: the game has ended."""

LEGAL = (DIGITS == 0) & ~OVER[:, None]
"""bool `[BOARDS, 9]`: legal moves; none once the game has ended."""


def pack(moves: np.ndarray) -> np.ndarray:
    """Pack bool `[..., 9]` into sets of squares, int64 `[...]` in 0..511."""
    return moves @ (1 << np.arange(SQUARES))


LEGAL_BITS = pack(LEGAL)
"""int64 `[BOARDS]`: legal moves as a set of squares."""

_SETS = (np.arange(1 << SQUARES)[:, None] >> np.arange(SQUARES) & 1).astype(bool)
_COUNT = _SETS.sum(axis=1).astype(np.uint64)
# Members first, in ascending order; what follows them is never read.
_MEMBERS = np.argsort(~_SETS, axis=1, kind="stable")


def pick(sets: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Choose one square uniformly from each set, by one 64-bit random number each, int64 `[M]`."""
    return _MEMBERS[sets, below(numbers, _COUNT[sets])]


def lowest(sets: np.ndarray) -> np.ndarray:
    """Choose the square with the lowest number from each set, int64 `[M]`."""
    return _MEMBERS[sets, 0]


def encode(boards: np.ndarray) -> np.ndarray:
    """Return the codes of boards `[..., 9]`, int64 `[...]`."""
    return boards.astype(np.int64) @ POWERS
