import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaestra.envs.tictactoe import rules
from palaestra.envs.tictactoe.rules import draw

boards = st.lists(st.integers(0, 2), min_size=9, max_size=9)


def naive_line(board: list[int], stone: int) -> bool:
    rows = [board[i : i + 3] for i in (0, 3, 6)]
    columns = [board[i::3] for i in range(3)]
    return [stone] * 3 in [*rows, *columns, board[0::4], board[2:7:2]]


@given(boards)
def test_the_tables_agree_with_the_rules_read_from_the_board(board: list[int]) -> None:
    code = int(rules.encode(np.array(board)))
    own, other = naive_line(board, 1), naive_line(board, 2)
    over = own or other or 0 not in board
    assert rules.DIGITS[code].tolist() == board
    assert rules.OWN_LINE[code] == own
    assert rules.OTHER_LINE[code] == other
    assert rules.OVER[code] == over
    assert rules.STONES[code] == 9 - board.count(0)
    assert rules.LEGAL[code].tolist() == [square == 0 and not over for square in board]
    assert rules.DIGITS[rules.SWAP[code]].tolist() == [[0, 2, 1][square] for square in board]


@given(boards, st.integers(0, 8), st.sampled_from([1, 2]))
def test_adding_a_power_puts_a_stone(board: list[int], square: int, stone: int) -> None:
    board[square] = 0
    code = rules.encode(np.array(board)) + stone * rules.POWERS[square]
    board[square] = stone
    assert rules.DIGITS[code].tolist() == board


def test_pick_is_uniform_over_the_members_of_a_set() -> None:
    keys = np.arange(60_000, dtype=np.uint64)
    squares = rules.pick(np.full(60_000, 0b100101001), draw(keys, 0))
    counts = np.bincount(squares, minlength=9)
    assert set(np.flatnonzero(counts)) == {0, 3, 5, 8}
    standard_error = np.sqrt(60_000 * 0.25 * 0.75)
    assert np.abs(counts[[0, 3, 5, 8]] - 15_000).max() < 4 * standard_error


@pytest.mark.parametrize(("members", "expected"), [(0b100101000, 3), (0b1, 0), (0b100000000, 8)])
def test_lowest_is_the_first_member_of_a_set(members: int, expected: int) -> None:
    assert rules.lowest(np.array([members])).tolist() == [expected]
