import pickle

import gymnasium
import numpy as np
import pytest

from palaestra import agents
from palaestra.envs.tictactoe.rules import DIGITS, LEGAL, OVER
from palaestra.envs.tictactoe.solver import solve
from palaestra.envs.tictactoe.vector import TicTacToeVectorEnv
from palaestra.envs.wrappers import VectorActionMask
from palaestra.errors import UserError
from palaestra.experience.state import State

ENVS = TicTacToeVectorEnv(1)
SPACES = ENVS.single_observation_space, ENVS.single_action_space
MASKED = VectorActionMask(ENVS).single_observation_space, ENVS.single_action_space


def squares(actor: agents.Actor, codes: np.ndarray, mode: str, seed: int = 0) -> np.ndarray:
    reset = np.zeros(len(codes), bool)
    rng = np.random.default_rng(seed)
    return actor.act(DIGITS[codes], State(), reset, rng, mode)[0]


def some_codes(size: int) -> np.ndarray:
    return np.random.default_rng(0).choice(np.flatnonzero(~OVER), size)


@pytest.mark.parametrize("mode", ["sample", "greedy"])
def test_minimax_never_blunders(mode: str) -> None:
    codes = some_codes(3000)
    actor = agents.make("minimax", *SPACES).make_actor()
    chosen = squares(actor, codes, mode)
    assert LEGAL[codes, chosen].all()
    assert not solve().blunder[codes, chosen].any()


def test_minimax_chooses_among_equal_moves_as_asked() -> None:
    codes = np.zeros(200, np.int64)
    uniform = agents.make("minimax", *SPACES).make_actor()
    first = agents.make("minimax", *SPACES, tie="first").make_actor()
    assert set(squares(uniform, codes, "greedy")) == set(range(9))
    assert set(squares(first, codes, "sample")) == {0}


@pytest.mark.parametrize("mode", ["sample", "greedy"])
@pytest.mark.parametrize("name", ["minimax", "mcts"])
def test_players_read_the_board_with_and_without_the_mask(name: str, mode: str) -> None:
    options = {"n": 15} if name == "mcts" else {}
    codes, reset = some_codes(50), np.zeros(50, bool)
    bare = agents.make(name, *SPACES, **options).make_actor()
    masked = pickle.loads(pickle.dumps(agents.make(name, *MASKED, **options).make_actor()))
    observation = {"observation": DIGITS[codes], "action_mask": LEGAL[codes].astype(np.int8)}
    one = squares(bare, codes, mode)
    two = masked.act(observation, State(), reset, np.random.default_rng(0), mode)[0]
    assert (one == two).all()
    assert LEGAL[codes, one].all()


def test_mcts_samples_in_proportion_to_visits_and_is_greedy_when_asked() -> None:
    # Own 0 and 1: square 2 wins at once and gets most visits, the others some.
    codes = np.full(400, 1 + 3 + 2 * 27 + 2 * 81)
    actor = agents.make("mcts", *SPACES, n=40).make_actor()
    assert set(squares(actor, codes, "greedy")) == {2}
    sampled = np.bincount(squares(actor, codes, "sample"), minlength=9) / 400
    assert sampled.argmax() == 2
    assert (sampled[[5, 6, 7, 8]] > 0).all()


def test_other_spaces_are_refused() -> None:
    with pytest.raises(UserError, match="nine squares"):
        agents.make("minimax", gymnasium.spaces.MultiDiscrete([3] * 4), SPACES[1])
