from collections.abc import Iterator
from functools import cache

import numpy as np

from palaestra.envs.tictactoe.rules import (
    DIGITS,
    LEGAL,
    OTHER_LINE,
    OVER,
    POWERS,
    STONES,
    SWAP,
)
from palaestra.envs.tictactoe.solver import solve


@cache
def reachable() -> np.ndarray:
    """Codes of the boards that play from the empty board reaches, seen by the player to move."""
    level, found = {0}, {0}
    while level:
        level = {int(SWAP[c + POWERS[s]]) for c in level for s in np.flatnonzero(LEGAL[c])}
        found |= level
    return np.array(sorted(found))


def games(code: int = 0) -> Iterator[tuple[int, int]]:
    """The plies and the loser (+1: the player to move lost, 0: draw) of every game."""
    if OVER[code]:
        yield int(STONES[code]), int(OTHER_LINE[code])
        return
    for square in np.flatnonzero(LEGAL[code]):
        yield from games(int(SWAP[code + POWERS[square]]))


def symmetric(code: int) -> set[int]:
    board = DIGITS[code].reshape(3, 3)
    turned = [np.rot90(b, k) for b in (board, board.T) for k in range(4)]
    return {int(t.ravel() @ POWERS) for t in turned}


def test_there_are_5478_reachable_states() -> None:
    codes = reachable()
    running, over = codes[~OVER[codes]], codes[OVER[codes]]
    first = STONES[running] % 2 == 0
    assert (len(codes), len(running), len(over)) == (5478, 4520, 958)
    assert (first.sum(), (~first).sum()) == (2423, 2097)
    won = OTHER_LINE[over]
    by_first = STONES[over] % 2 == 1
    assert ((won & by_first).sum(), (won & ~by_first).sum(), (~won).sum()) == (626, 316, 16)


def test_there_are_765_states_up_to_symmetry() -> None:
    codes = reachable()
    classes = {min(symmetric(int(code))) for code in codes}
    assert len(classes) == 765
    assert sum(not OVER[code] for code in classes) == 627


def test_there_are_255168_games() -> None:
    ends = list(games())
    first = sum(lost for plies, lost in ends if plies % 2 == 1)
    second = sum(lost for plies, lost in ends if plies % 2 == 0)
    assert (len(ends), first, second) == (255_168, 131_184, 77_904)


def test_values_and_blunders_over_the_reachable_states() -> None:
    codes = reachable()
    running = codes[~OVER[codes]]
    solution = solve()
    values, counts = np.unique(solution.value[running], return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {1: 2836, 0: 1052, -1: 632}
    assert LEGAL[running].sum() == 16_167
    assert solution.blunder[running].sum() == 7304
    assert (solution.blunder_possible == solution.blunder.any(axis=1)).all()


def test_every_opening_draws_and_the_right_replies_are_known() -> None:
    solution = solve()
    assert solution.value[0] == 0
    assert solution.move_value[0].tolist() == [0] * 9
    replies = {
        square: set(np.flatnonzero(solution.optimal[2 * POWERS[square]] >> np.arange(9) & 1))
        for square in (4, 0, 1)
    }
    assert replies == {4: {0, 2, 6, 8}, 0: {4}, 1: {0, 2, 4, 7}}


def test_a_value_is_that_of_the_best_move_and_its_mirror() -> None:
    solution = solve()
    running = ~OVER
    assert (solution.value[running] == solution.move_value[running].max(axis=1)).all()
    codes, squares = np.nonzero(LEGAL)
    after = SWAP[codes + POWERS[squares]]
    assert (solution.move_value[codes, squares] == -solution.value[after]).all()


def test_fastest_moves_are_optimal_and_end_the_game_at_once_where_possible() -> None:
    solution = solve()
    assert (solution.fastest & ~solution.optimal == 0).all()
    codes, squares = np.nonzero(LEGAL)
    wins = OTHER_LINE[SWAP[codes + POWERS[squares]]] & ~OTHER_LINE[codes]
    can_win = np.isin(codes, codes[wins])
    fast = solution.fastest[codes] >> squares & 1 == 1
    assert (fast[can_win] == wins[can_win]).all()
