import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

import palaestra.envs  # noqa: F401  (registers the environments)
from palaestra.envs.tictactoe.env import TicTacToeEnv
from palaestra.envs.tictactoe.rules import encode
from palaestra.envs.tictactoe.solver import solve
from palaestra.errors import UserError


def play(env: TicTacToeEnv, rng: np.random.Generator, info: dict) -> list[tuple]:
    """Play one game with uniform legal moves and return its steps."""
    steps, over = [], False
    while not over:
        action = rng.choice(np.flatnonzero(info["action_mask"]))
        observation, reward, over, truncated, info = env.step(action)
        steps.append((observation.tolist(), reward, over, truncated, info))
    return steps


@pytest.mark.filterwarnings("error")
def test_gymnasiums_checker_is_content() -> None:
    check_env(gymnasium.make("palaestra/TicTacToe-v0").unwrapped)


@pytest.mark.parametrize("opponent", ["random", "minimax"])
def test_masks_are_the_empty_squares_until_the_end(opponent: str) -> None:
    env, rng = TicTacToeEnv(opponent, first="alternate"), np.random.default_rng(0)
    for _ in range(30):
        observation, info = env.reset()
        assert (info["action_mask"] == (observation == 0)).all()
        for shown, _, over, _, after in play(env, rng, info):
            assert after["action_mask"].tolist() == [not over and s == 0 for s in shown]


def test_infos_tell_blunders_and_the_result() -> None:
    env, rng, solution = TicTacToeEnv(first="random"), np.random.default_rng(0), solve()
    for _ in range(50):
        observation, info = env.reset()
        rewards = []
        for t in range(1, 10):
            action = rng.choice(np.flatnonzero(info["action_mask"]))
            code = encode(observation)
            observation, reward, over, _, info = env.step(action)
            rewards.append(reward)
            assert info["blunder"] == solution.blunder[code, action]
            assert info["blunder_possible"] == solution.blunder_possible[code]
            assert (info["illegal"], info["substituted"], info["t"]) == (False, False, t)
            if over:
                break
        assert info["result"] == reward == sum(rewards)


def test_an_illegal_action_ends_the_game_by_default() -> None:
    env = TicTacToeEnv()
    env.reset(seed=0)
    env.step(4)
    _, reward, over, truncated, info = env.step(4)
    assert (reward, over, truncated, info["result"]) == (-1, True, False, -1)
    assert info["illegal"]
    assert not info["blunder"]
    assert not info["action_mask"].any()


def test_an_illegal_action_can_be_replaced_by_a_random_legal_one() -> None:
    env = TicTacToeEnv(illegal_action="random")
    env.reset(seed=0)
    observation, *_ = env.step(4)
    after, reward, over, _, info = env.step(4)
    assert (after == 1).sum() == 2
    assert (after == 2).sum() == 2
    assert ((after == observation) | (observation == 0)).all()
    assert info["illegal"]
    assert info["substituted"]
    assert (reward, over) == (0, False)


def test_an_illegal_action_can_lose_the_turn() -> None:
    env = TicTacToeEnv(illegal_action="noop")
    env.reset(seed=0)
    env.step(4)
    for turn in range(1, 8):
        observation, reward, over, *_ = env.step(4)
        assert (observation == 1).sum() == 1
        assert (observation == 2).sum() == 1 + turn
        if over:
            break
    assert (over, reward) == (True, -1)


@pytest.mark.parametrize("action", [-1, 9, 100])
def test_an_action_out_of_range_is_refused_with_the_range(action: int) -> None:
    env = TicTacToeEnv()
    env.reset(seed=0)
    with pytest.raises(UserError, match=rf"action: {action} is not accepted: .* 0 to 8"):
        env.step(action)


def test_stepping_before_a_reset_or_after_the_end_raises() -> None:
    env = TicTacToeEnv()
    with pytest.raises(ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    env.step(0)
    env.step(0)
    with pytest.raises(ResetNeeded):
        env.step(1)


def test_who_opens() -> None:
    opened = {}
    for first in ("agent", "opponent", "alternate", "random"):
        env = TicTacToeEnv(first=first)
        games = [env.reset(seed=3, options={"index": index}) for index in range(64)]
        opened[first] = [info["agent_first"] for _, info in games]
        for board, info in games:
            assert (board != 0).sum() == (not info["agent_first"])
    assert all(opened["agent"])
    assert not any(opened["opponent"])
    assert opened["alternate"] == [False, True] * 32  # seed 3
    assert 16 <= sum(opened["random"]) <= 48  # 4 standard errors


@pytest.mark.parametrize("plies", range(4))
@pytest.mark.parametrize("first", ["agent", "opponent"])
def test_random_openings_hold_the_right_stones(first: str, plies: int) -> None:
    env = TicTacToeEnv(first=first, openings={"random_plies": plies})
    boards = set()
    for index in range(40):
        board, info = env.reset(seed=1, options={"index": index})
        own, other = (board == 1).sum(), (board == 2).sum()
        # The agent is to move: it has as many stones if it opened, else one fewer.
        assert own + (first == "opponent") == other
        assert own + other - plies in (0, 1)
        assert (info["action_mask"] == (board == 0)).all()
        boards.add(tuple(board))
    assert len(boards) > 1 or (plies == 0 and first == "agent")


def test_an_instance_does_not_depend_on_what_was_played_before() -> None:
    env, other = TicTacToeEnv(first="random"), TicTacToeEnv(first="random")
    _, info = env.reset(seed=7)
    for _ in range(5):
        play(env, np.random.default_rng(1), info)
        _, info = env.reset()
    _, again = other.reset(seed=7, options={"index": 5})
    one, two = (play(e, np.random.default_rng(2), i) for e, i in ((env, info), (other, again)))
    assert repr(one) == repr(two)
    assert (info["instance_seed"], info["instance_index"]) == (7, 5)


def test_a_stored_state_goes_on_exactly() -> None:
    options = {"opponent": "mix", "opponent_options": {"random": 1, "noisy": 1}, "first": "random"}
    env, copy = TicTacToeEnv(**options), TicTacToeEnv(**options)
    env.reset(seed=11)
    env.step(4)
    copy.set_state(env.get_state())
    for rng, e in ((np.random.default_rng(0), env), (np.random.default_rng(0), copy)):
        e.recorded = [e.step(rng.integers(9))]
        for _ in range(5):
            e.recorded += play(e, rng, e.reset()[1])
    assert repr(env.recorded) == repr(copy.recorded)


def test_the_policy_of_self_play_sees_the_board_from_its_side() -> None:
    env = TicTacToeEnv(opponent="self_play")
    seen = []

    def lowest_square(boards: np.ndarray) -> np.ndarray:
        seen.append(boards.copy())
        return (boards == 0).argmax(axis=1)

    env.set_opponent_policy(lowest_square)
    env.reset(seed=0)
    observation, *_ = env.step(4)
    assert seen[0].tolist() == [[0, 0, 0, 0, 2, 0, 0, 0, 0]]
    assert observation.tolist() == [2, 0, 0, 0, 1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opponent": "rndom"}, "did you mean 'random'"),
        ({"first": "me"}, "first: 'me'"),
        ({"openings": {"random_plies": 4}}, "random_plies: 4"),
        ({"illegal_action": "raise"}, "illegal_action: 'raise'"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        TicTacToeEnv(**options)


def test_a_board_renders_as_three_lines() -> None:
    env = TicTacToeEnv(opponent="minimax", opponent_options={"tie": "first"}, render_mode="ansi")
    env.reset(seed=0)
    env.step(4)
    assert env.render() == "O..\n.X.\n..."
