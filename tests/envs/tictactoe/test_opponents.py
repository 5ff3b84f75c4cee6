import numpy as np
import pytest

from palaestra.envs.tictactoe.mcts import search
from palaestra.envs.tictactoe.opponents import OPPONENTS, OpponentPool, make_opponent
from palaestra.envs.tictactoe.rules import DIGITS, LEGAL, OVER, POWERS, STONES, draw
from palaestra.envs.tictactoe.solver import solve
from palaestra.errors import UserError

FAST = {"mcts": {"n": 12}, "noisy": {"p": 0.3}}


def some_boards(seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    codes = rng.choice(np.flatnonzero(~OVER), size)
    return codes, rng.integers(2**64, size=size, dtype=np.uint64)


@pytest.mark.parametrize("name", OPPONENTS)
def test_every_reply_is_legal_and_depends_on_its_own_row_alone(name: str) -> None:
    opponent = make_opponent(name, FAST.get(name, {}))
    codes, keys = some_boards(0, 400)
    squares = opponent.reply(codes, keys)
    assert LEGAL[codes, squares].all()
    order = np.random.default_rng(1).permutation(400)[:77]
    assert (opponent.reply(codes[order], keys[order]) == squares[order]).all()


@pytest.mark.parametrize("prefer_fast_win", [False, True])
@pytest.mark.parametrize("tie", ["uniform", "first"])
def test_minimax_never_blunders(tie: str, prefer_fast_win: bool) -> None:
    opponent = make_opponent("minimax", {"tie": tie, "prefer_fast_win": prefer_fast_win})
    codes, keys = some_boards(0, 5000)
    assert not solve().blunder[codes, opponent.reply(codes, keys)].any()


def test_minimax_takes_the_fastest_win_only_when_asked() -> None:
    solution = solve()
    codes, keys = some_boards(0, 5000)
    for fast in (True, False):
        opponent = make_opponent("minimax", {"prefer_fast_win": fast})
        squares = opponent.reply(codes, keys)
        assert (solution.fastest[codes] >> squares & 1 == 1).all() == fast


def test_minimax_ties_are_uniform_or_the_lowest_square() -> None:
    codes, keys = np.zeros(9000, np.int64), some_boards(0, 9000)[1]
    counts = np.bincount(make_opponent("minimax", {}).reply(codes, keys), minlength=9)
    assert np.abs(counts - 1000).max() < 4 * np.sqrt(9000 / 9 * 8 / 9)
    assert (make_opponent("minimax", {"tie": "first"}).reply(codes, keys) == 0).all()


def test_noisy_blunders_as_often_as_its_random_moves_do() -> None:
    # To the centre only a corner is right: a random reply blunders with probability 4/8.
    codes, keys = np.full(20_000, 2 * POWERS[4]), some_boards(0, 20_000)[1]
    squares = make_opponent("noisy", {"p": 0.4}).reply(codes, keys)
    expected = 0.4 * 0.5
    blunders = solve().blunder[codes, squares].mean()
    assert abs(blunders - expected) < 4 * np.sqrt(expected * (1 - expected) / 20_000)


def test_noisy_passes_options_to_its_base() -> None:
    codes, keys = some_boards(3, 200)
    noisy = make_opponent("noisy", {"p": 0, "base_options": {"tie": "first"}})
    first = make_opponent("minimax", {"tie": "first"})
    assert (noisy.reply(codes, keys) == first.reply(codes, keys)).all()


def test_a_pool_assigns_opponents_by_weight() -> None:
    pool = OpponentPool("mix", {"random": 1, "minimax": {"weight": 3, "tie": "first"}})
    keys = np.random.default_rng(0).integers(2**64, size=20_000, dtype=np.uint64)
    who = pool.assign(keys)
    assert pool.names == ("random", "minimax")
    assert abs(who.mean() - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 20_000)
    squares = pool.reply(who, np.zeros(20_000, np.int64), draw(keys, 1))
    assert (squares[who == 1] == 0).all()
    assert len(np.unique(squares[who == 0])) == 9


def test_self_play_asks_the_given_policy_and_checks_its_moves() -> None:
    pool = OpponentPool("self_play", {})
    codes = np.flatnonzero(~OVER & (STONES == 3))[:50]
    seen = []

    def last_square(boards: np.ndarray) -> np.ndarray:
        seen.append(boards)
        return 8 - (boards[:, ::-1] == 0).argmax(axis=1)

    pool.set_policy(last_square)
    squares = pool.reply(np.zeros(50, np.int64), codes, np.zeros(50, np.uint64))
    assert (seen[0] == DIGITS[codes]).all()
    assert (squares == last_square(DIGITS[codes])).all()
    pool.set_policy(lambda boards: boards.argmax(axis=1))
    with pytest.raises(UserError, match="empty square"):
        pool.reply(np.zeros(50, np.int64), codes, np.zeros(50, np.uint64))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("minmax", {}, "did you mean 'minimax'"),
        ("noisy", {"p": 2}, "opponent_options.p: 2"),
        ("noisy", {"q": 2}, "opponent_options.q: unknown key"),
        ("mix", {}, "needs weights"),
        ("mix", {"random": 0}, "opponent_options.random: 0"),
        ("mix", {"random": 1, "minmax": 1}, "did you mean 'minimax'"),
    ],
)
def test_wrong_opponents_are_refused_with_what_is_accepted(
    name: str, options: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        OpponentPool(name, options)


def test_a_policy_needs_a_self_play_opponent() -> None:
    with pytest.raises(UserError, match="self_play"):
        OpponentPool("random", {}).set_policy(lambda boards: boards[:, 0])


def test_a_search_spends_all_simulations_on_legal_moves() -> None:
    codes, keys = some_boards(5, 300)  # more boards than are searched together
    visits = search(codes, keys, n=20, c=1.4)
    assert (visits.sum(axis=1) == 20).all()
    assert (visits[~LEGAL[codes]] == 0).all()
    assert (visits[LEGAL[codes]] > 0).all()


def test_a_search_finds_a_win_in_one() -> None:
    code = np.full(40, np.array([1, 1, 0, 2, 2, 0, 0, 0, 0]) @ POWERS)
    visits = search(code, np.arange(40, dtype=np.uint64), n=200, c=2**0.5)
    assert (visits.argmax(axis=1) == 2).all()
