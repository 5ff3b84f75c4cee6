import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode

import palaestra.envs  # noqa: F401  (registers the environments)
from palaestra.envs.tictactoe import exact
from palaestra.envs.tictactoe.env import TicTacToeEnv
from palaestra.envs.tictactoe.rules import LEGAL
from palaestra.envs.tictactoe.solver import solve
from palaestra.envs.tictactoe.vector import TicTacToeVectorEnv
from palaestra.errors import UserError

CASES = {
    "defaults": {},
    "minimax-alternate": {"opponent": "minimax", "first": "alternate"},
    "fast-minimax-second": {
        "opponent": "minimax",
        "opponent_options": {"prefer_fast_win": True, "tie": "first"},
        "first": "opponent",
    },
    "mcts-noop": {"opponent": "mcts", "opponent_options": {"n": 6}, "illegal_action": "noop"},
    "noisy-random": {"opponent": "noisy", "first": "random", "illegal_action": "random"},
    "noisy-mcts": {
        "opponent": "noisy",
        "opponent_options": {"base": "mcts", "base_options": {"n": 4}, "p": 0.5},
    },
    "self-play": {"opponent": "self_play", "first": "random"},
    "mix": {
        "opponent": "mix",
        "opponent_options": {"random": 1, "minimax": 1, "noisy": {"weight": 2, "p": 0.3}},
        "first": "random",
        "openings": {"random_plies": 3},
        "illegal_action": "random",
    },
}


def legal_moves(info: dict, rng: np.random.Generator) -> np.ndarray:
    """Choose a uniform legal move in each row."""
    noise = rng.random(info["action_mask"].shape)
    return np.where(info["action_mask"], noise, -1).argmax(axis=1)


@pytest.mark.parametrize("legal", [True, False], ids=["legal", "any"])
@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_each_row_plays_what_the_single_environment_plays(options: dict, legal: bool) -> None:
    N = 7
    envs, singles = TicTacToeVectorEnv(N, **options), [TicTacToeEnv(**options) for _ in range(N)]
    rng = np.random.default_rng(0)
    shown, info = envs.reset(seed=5)
    for n, env in enumerate(singles):
        observation, single_info = env.reset(seed=5 + n)
        assert_row_equal(n, shown, info, observation, single_info)
    for _ in range(40):
        actions = legal_moves(info, rng) if legal else rng.integers(9, size=N)
        shown, reward, terminated, truncated, info = envs.step(actions)
        for n, env in enumerate(singles):
            observation, r, over, cut, single_info = env.step(actions[n])
            assert (reward[n], terminated[n], truncated[n]) == (r, over, cut)
            for key in ("blunder", "blunder_possible", "illegal", "substituted"):
                assert info[key][n] == single_info[key]
            if over:
                final = info["final_obs"], info["final_info"]
                assert info["_final_obs"][n]
                assert_row_equal(n, *final, observation, single_info)
                observation, single_info = env.reset()
            assert_row_equal(n, shown, info, observation, single_info)


def assert_row_equal(
    n: int, shown: np.ndarray, infos: dict, observation: np.ndarray, info: dict
) -> None:
    assert shown[n].tolist() == observation.tolist()
    for key, value in info.items():
        assert np.array_equal(infos[key][n], value), key


def test_it_is_the_registered_vector_version() -> None:
    envs = gymnasium.make_vec("palaestra/TicTacToe-v0", 3, opponent="minimax")
    assert isinstance(envs.unwrapped, TicTacToeVectorEnv)
    assert envs.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    single = gymnasium.make("palaestra/TicTacToe-v0")
    assert envs.single_observation_space == single.observation_space
    assert envs.single_action_space == single.action_space
    observation, _ = envs.reset(seed=0)
    assert envs.observation_space.contains(observation)


def test_seeds_and_indices_can_be_given_by_row() -> None:
    options = {"first": "opponent"}
    envs = TicTacToeVectorEnv(3, **options)
    shown, info = envs.reset(seed=[9, 9, 4], options={"index": [0, 6, 6]})
    for n, (seed, index) in enumerate([(9, 0), (9, 6), (4, 6)]):
        alone, _ = TicTacToeEnv(**options).reset(seed=seed, options={"index": index})
        assert shown[n].tolist() == alone.tolist()
        assert (info["instance_seed"][n], info["instance_index"][n]) == (seed, index)
    _, info = envs.reset()
    assert info["instance_index"].tolist() == [1, 7, 7]
    _, info = envs.reset(seed=2)
    assert info["instance_seed"].tolist() == [2, 3, 4]
    assert info["instance_index"].tolist() == [0, 0, 0]


def test_a_stored_state_goes_on_exactly() -> None:
    options = CASES["mix"]
    envs, copy = TicTacToeVectorEnv(5, **options), TicTacToeVectorEnv(5, **options)
    rng = np.random.default_rng(0)
    envs.reset(seed=3)
    for _ in range(7):
        envs.step(rng.integers(9, size=5))
    copy.set_state(envs.get_state())
    for _ in range(20):
        actions = rng.integers(9, size=5)
        assert repr(envs.step(actions)) == repr(copy.step(actions))


def test_what_was_returned_is_never_changed_later() -> None:
    envs, rng = TicTacToeVectorEnv(6, first="random"), np.random.default_rng(0)
    returned = [envs.reset(seed=0)]
    before = [repr(returned[0])]
    for _ in range(12):
        returned.append(envs.step(rng.integers(9, size=6)))
        before.append(repr(returned[-1]))
    assert [repr(item) for item in returned] == before


@pytest.mark.parametrize(
    ("actions", "named"), [([0, 9, 3], "9 in row 1"), ([0, 1, -1], "-1 in row 2")]
)
def test_an_action_out_of_range_is_refused_and_nothing_moves(actions: list, named: str) -> None:
    envs = TicTacToeVectorEnv(3)
    envs.reset(seed=0)
    before = repr(envs.get_state())
    with pytest.raises(UserError, match=rf"actions: {named} is not accepted: .* 0 to 8"):
        envs.step(np.array(actions))
    assert repr(envs.get_state()) == before


def test_a_step_before_the_first_reset_raises() -> None:
    with pytest.raises(ResetNeeded):
        TicTacToeVectorEnv(2).step(np.zeros(2, int))


def test_as_many_seeds_as_rows_are_needed() -> None:
    with pytest.raises(UserError, match="2 seeds are not accepted: 3 are"):
        TicTacToeVectorEnv(3).reset(seed=[1, 2])


OPTIMAL = LEGAL & ~solve().blunder
UNIFORM, PERFECT = exact.uniform_over(LEGAL), exact.uniform_over(OPTIMAL)
EXACT = {
    "random": ({}, UNIFORM),
    "minimax": ({}, PERFECT),
    "noisy": ({"p": 0.5}, 0.5 * UNIFORM + 0.5 * PERFECT),
    "mix": ({"random": 1, "minimax": 1}, None),
}


@pytest.mark.parametrize("first", ["agent", "opponent"])
@pytest.mark.parametrize("opponent", EXACT)
def test_uniform_play_meets_the_exact_results(opponent: str, first: str) -> None:
    N = 10_000
    options, policy = EXACT[opponent]
    envs = TicTacToeVectorEnv(N, opponent=opponent, opponent_options=options, first=first)
    rng = np.random.default_rng(1)
    _, info = envs.reset(seed=0)
    result, playing = np.zeros(N), np.ones(N, bool)
    for _ in range(5):
        _, reward, over, _, info = envs.step(legal_moves(info, rng))
        result += np.where(playing, reward, 0)
        playing &= ~over
    assert not playing.any()
    policies = [UNIFORM, PERFECT] if policy is None else [policy]
    expected = np.mean([_results(p, first) for p in policies], axis=0)
    found = np.array([(result == r).mean() for r in (1, 0, -1)])
    standard_error = np.sqrt(expected * (1 - expected) / N)
    assert (np.abs(found - expected) <= 4 * standard_error).all()


def _results(opponent: np.ndarray, first: str) -> np.ndarray:
    """P(win), P(draw), P(loss) of uniform play."""
    if first == "agent":
        return exact.outcomes(UNIFORM, opponent)[0]
    return exact.outcomes(opponent, UNIFORM)[0][::-1]
