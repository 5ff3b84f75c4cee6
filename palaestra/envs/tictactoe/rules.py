"""Rules of Tic-tac-toe as lookup tables over all 3**9 boards.

A board is seen by one player: 0 empty, 1 own stone, 2 the other player's, squares row by row. Its
code is `sum(board[i] * 3**i)`. All functions work on arrays of codes, and every table has one row
for each code, so that thousands of games advance by a few gathers.

Every draw of a game is a function of (seed, index, word) alone. A batch of games therefore draws
exactly what each game alone would draw, and a stored game continues exactly from its board.
"""

import numpy as np

from palaestra.envs.noise import bits

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
    result: np.ndarray = np.any([(DIGITS[:, line] == stone).all(axis=1) for line in LINES], axis=0)
    return result


OWN_LINE = _has_line(1)
"""bool `[BOARDS]`: three own stones in a row."""
OTHER_LINE = _has_line(2)
STONES = (DIGITS != 0).sum(axis=1)
"""int64 `[BOARDS]`: stones on the board."""
OVER = OWN_LINE | OTHER_LINE | (STONES == SQUARES)
"""bool `[BOARDS]`: the game has ended."""

LEGAL = (DIGITS == 0) & ~OVER[:, None]
"""bool `[BOARDS, 9]`: legal moves; none once the game has ended."""


# The words of a game's random stream.
FIRST = 0
"""Who opens."""
MEETS = 1
"""Which of several opponents plays."""
OPENING = 16
"""A random opening move; the stones on the board are added."""
REPLY = 32
"""A move of the opponent; the stones on the board are added."""
SUBSTITUTE = 48
"""A move in place of an illegal one; the stones on the board are added."""


def draw(keys: np.ndarray, word: int | np.ndarray) -> np.ndarray:
    """Return number `word` of each key's stream; it may serve as a key itself, uint64 `[M]`."""
    return bits(keys, np.asarray(word).astype(np.uint64))


def below(numbers: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Map 64-bit numbers to uniform integers in [0, bound), uint64 bounds, int64 `[M]`."""
    result: np.ndarray = ((numbers >> np.uint64(32)) * bounds >> np.uint64(32)).astype(np.int64)
    return result


def pack(moves: np.ndarray) -> np.ndarray:
    """Pack bool `[..., 9]` into sets of squares, int64 `[...]` in 0..511."""
    result: np.ndarray = moves @ (1 << np.arange(SQUARES))
    return result


LEGAL_BITS = pack(LEGAL)
"""int64 `[BOARDS]`: legal moves as a set of squares."""

_SETS = (np.arange(1 << SQUARES)[:, None] >> np.arange(SQUARES) & 1).astype(bool)
_COUNT = _SETS.sum(axis=1).astype(np.uint64)
# Members first, in ascending order; what follows them is never read.
_MEMBERS = np.argsort(~_SETS, axis=1, kind="stable")


def pick(sets: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Choose one square uniformly from each set, by one 64-bit random number each, int64 `[M]`."""
    result: np.ndarray = _MEMBERS[sets, below(numbers, _COUNT[sets])]
    return result


def lowest(sets: np.ndarray) -> np.ndarray:
    """Choose the square with the lowest number from each set, int64 `[M]`."""
    result: np.ndarray = _MEMBERS[sets, 0]
    return result


def encode(boards: np.ndarray) -> np.ndarray:
    """Return the codes of boards `[..., 9]`, int64 `[...]`."""
    return boards.astype(np.int64) @ POWERS
