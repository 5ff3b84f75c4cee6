import copy
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

from palaestra.envs import make_vec
from palaestra.envs.recorded import RecordedEpisodes, RowsVectorEnv
from palaestra.errors import UserError

GYMNASIUM: dict[str, dict[str, Any]] = {
    "CartPole-v1": {},
    "MountainCar-v0": {"max_episode_steps": 20},
    "Pendulum-v1": {"max_episode_steps": 15},
    "Acrobot-v1": {"max_episode_steps": 25},
    "FrozenLake-v1": {},
    "Taxi-v4": {"max_episode_steps": 30},
    "Blackjack-v1": {},
}
OURS: dict[str, dict[str, Any]] = {
    "palaestra/GaussianBandit-v0": {"K": 3, "T": 20},
    "palaestra/BernoulliBandit-v0": {"K": 3, "T": 20, "observation": "summary"},
    "palaestra/SyntheticMovies-v0": {"K": 4, "T": 20},
    "palaestra/TicTacToe-v0": {"illegal_action": "random", "first": "random"},
}
ANY = GYMNASIUM | OURS
anywhere = given(seed=st.integers(0, 2**31 - 1), k=st.integers(0, 60), m=st.integers(1, 60))


def make(env_id: str) -> gymnasium.Env:
    return gymnasium.make(env_id, **ANY[env_id])


def actions(space: gymnasium.Space, seed: int, n: int) -> list[Any]:
    space.seed(seed)
    return [space.sample() for _ in range(n)]


def play(env: gymnasium.Env, moves: list[Any]) -> list[Any]:
    """Step and reset at each end; return all that the environment said."""
    said: list[Any] = []
    for action in moves:
        said.append(env.step(action))
        if said[-1][2] or said[-1][3]:
            said.append(env.reset())
    return said


def assert_same(a: Any, b: Any) -> None:
    """Bit for bit, through dicts, tuples and object arrays."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, tuple | list) or (isinstance(a, np.ndarray) and a.dtype == object):
        assert (type(a), len(a)) == (type(b), len(b))
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, np.ndarray):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    else:
        assert type(a) is type(b)
        assert a == b or (a != a and b != b)


class Echo(gymnasium.Env[Any, Any]):
    """Shows what it was given; ends after `length` steps."""

    def __init__(self, action_space: gymnasium.Space, length: int = 5) -> None:
        self.action_space = self.observation_space = action_space
        self.length = length
        self.given: list[Any] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.given = []
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.given.append(copy.deepcopy(action))
        return action, 1.0, False, len(self.given) == self.length, {"n": len(self.given)}


class Hidden(gymnasium.Env[int, Any]):
    """Draws from a generator of its own, which only a seed sets."""

    observation_space: spaces.Discrete = spaces.Discrete(2**30)
    action_space: spaces.Discrete = spaces.Discrete(2)

    def __init__(self, heeds_seeds: bool = True) -> None:
        self.heeds_seeds = heeds_seeds
        self.hidden = np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict[str, Any]]:
        if seed is not None and self.heeds_seeds:
            self.hidden = np.random.default_rng(seed)
        return self._look(), {}

    def step(self, action: Any) -> tuple[int, float, bool, bool, dict[str, Any]]:
        x = self._look()
        return x, 0.0, x % 8 == 0, False, {}

    def _look(self) -> int:
        return int(self.hidden.integers(2**30))


class Levels(gymnasium.Env[int, Any]):
    """Shows how many episodes it has begun, which no seed changes."""

    observation_space: spaces.Discrete = spaces.Discrete(100)
    action_space: spaces.Discrete = spaces.Discrete(2)
    level = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.level += 1
        return self.level, {}

    def step(self, action: Any) -> tuple[int, float, bool, bool, dict[str, Any]]:
        return self.level, 0.0, bool(action), False, {}

    def get_state(self) -> dict[str, Any]:
        return {"level": self.level}

    def set_state(self, state: dict[str, Any]) -> None:
        self.level = state["level"]


@pytest.mark.parametrize("reseed", [True, False])
@pytest.mark.parametrize("env_id", ANY)
@settings(max_examples=5, deadline=None)
@anywhere
def test_an_environment_goes_on_exactly_in_a_fresh_copy(
    env_id: str, reseed: bool, seed: int, k: int, m: int
) -> None:
    env, fresh = RecordedEpisodes(make(env_id), reseed), RecordedEpisodes(make(env_id), reseed)
    moves = actions(env.action_space, seed, k + m)
    env.reset(seed=seed)
    play(env, moves[:k])
    state = copy.deepcopy(env.get_state())
    straight = play(env, moves[k:])
    for _ in range(2):  # the second time into a copy that has been used
        fresh.set_state(state)
        assert_same(fresh.get_state(), state)
        assert_same(play(fresh, moves[k:]), straight)
    assert_same(fresh.get_state(), env.get_state())


@pytest.mark.parametrize("env_id", ANY)
@settings(max_examples=4, deadline=None)
@anywhere
def test_without_reseeding_an_environment_plays_as_if_it_were_bare(
    env_id: str, seed: int, k: int, m: int
) -> None:
    bare, env = make(env_id), RecordedEpisodes(make(env_id), reseed=False)
    moves = actions(env.action_space, seed, 4 * k + m)
    assert_same(env.reset(seed=seed), bare.reset(seed=seed))
    assert_same(play(env, moves), play(bare, moves))
    assert_same(env.reset(), bare.reset())


@pytest.mark.parametrize("env_id", GYMNASIUM)
def test_with_reseeding_the_first_episode_after_a_seed_is_the_environments_own(env_id: str) -> None:
    bare, env = make(env_id), RecordedEpisodes(make(env_id), reseed=True)
    for seed in (3, 4, 3):
        assert_same(env.reset(seed=seed), bare.reset(seed=seed))
        first = env.reset()
    env.reset(seed=3)
    assert_same(env.reset(), first)


@pytest.mark.parametrize("reseed", [True, False])
@pytest.mark.parametrize("env_id", ANY)
def test_an_environment_that_was_never_reset_gives_its_state_too(env_id: str, reseed: bool) -> None:
    env, fresh = RecordedEpisodes(make(env_id), reseed), RecordedEpisodes(make(env_id), reseed)
    state = copy.deepcopy(env.get_state())
    straight = env.reset()
    for _ in range(2):
        fresh.set_state(state)
        assert_same(fresh.reset(), straight)


def test_a_reseeded_episode_follows_from_its_seed_even_where_a_generator_is_hidden() -> None:
    env, fresh = RecordedEpisodes(Hidden(), True), RecordedEpisodes(Hidden(), True)
    env.reset(seed=1)
    play(env, [0] * 50)
    fresh.set_state(env.get_state())
    assert_same(play(fresh, [1] * 50), play(env, [1] * 50))


@pytest.mark.parametrize("reseed", [True, False])
def test_what_an_environment_keeps_from_episode_to_episode_goes_on_by_its_own_state(
    reseed: bool,
) -> None:
    env, fresh = RecordedEpisodes(Levels(), reseed), RecordedEpisodes(Levels(), reseed)
    env.reset(seed=1)
    play(env, [0, 1, 1, 0])
    env.reset(seed=1)
    fresh.set_state(env.get_state())
    assert_same(play(fresh, [0, 1]), play(env, [0, 1]))


@pytest.mark.parametrize(("reseed", "heeds_seeds"), [(False, True), (True, False)])
def test_an_environment_that_is_not_deterministic_is_refused_by_name(
    reseed: bool, heeds_seeds: bool
) -> None:
    env = RecordedEpisodes(Hidden(heeds_seeds), reseed)
    env.reset(seed=1)
    env.reset()
    with pytest.raises(UserError, match=r"Hidden is not deterministic.*env\.reset_at_checkpoint"):
        RecordedEpisodes(Hidden(heeds_seeds), reseed).set_state(env.get_state())


def test_the_options_of_the_reset_belong_to_the_episode() -> None:
    env, fresh = (RecordedEpisodes(make("palaestra/TicTacToe-v0"), False) for _ in range(2))
    options = {"index": 7}
    env.reset(seed=2, options=options)
    options["index"] = 8
    fresh.set_state(env.get_state())
    assert fresh.step(4)[4]["instance_index"] == 7


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(5),
        spaces.Box(-1, 1, (2, 3)),
        spaces.MultiBinary(4),
        spaces.Tuple((spaces.Discrete(3), spaces.Box(-1, 1, (2,), np.float64))),
        spaces.Dict({"a": spaces.Dict({"b": spaces.Discrete(3)}), "c": spaces.MultiDiscrete([2])}),
        spaces.Sequence(spaces.Discrete(4)),
        spaces.Text(6),
    ],
    ids=lambda space: type(space).__name__,
)
@pytest.mark.parametrize("n", [0, 1, 4])
def test_a_replay_gives_the_environment_what_it_was_given(space: gymnasium.Space, n: int) -> None:
    env, fresh = RecordedEpisodes(Echo(space), True), RecordedEpisodes(Echo(space), True)
    moves = actions(space, 0, n)
    env.reset(seed=0)
    play(env, moves)
    fresh.set_state(env.get_state())
    assert_same(fresh.unwrapped.given, moves)  # type: ignore[attr-defined]


@pytest.mark.parametrize("number", [3, 3.5, True, np.float32(3), np.int8(3)])
def test_a_number_stays_of_its_type(number: Any) -> None:
    env, fresh = (RecordedEpisodes(Echo(spaces.Discrete(5)), False) for _ in range(2))
    env.reset(seed=0)
    play(env, [number, number])
    fresh.set_state(env.get_state())
    assert_same(fresh.unwrapped.given, [number, number])  # type: ignore[attr-defined]


def test_actions_of_several_types_are_kept_as_they_are() -> None:
    moves = [1, np.int64(2), np.array(3, np.int8), 4]
    env, fresh = (RecordedEpisodes(Echo(spaces.Discrete(9)), False) for _ in range(2))
    env.reset(seed=0)
    play(env, moves)
    fresh.set_state(env.get_state())
    assert_same(fresh.unwrapped.given, moves)  # type: ignore[attr-defined]


def test_a_caller_may_write_its_next_action_into_the_same_arrays() -> None:
    space = spaces.Dict({"x": spaces.Tuple((spaces.Box(-9, 9, (1,), np.float64),))})
    env, fresh = RecordedEpisodes(Echo(space), True), RecordedEpisodes(Echo(space), True)
    env.reset(seed=0)
    x = np.zeros(1)
    for value in (1.0, 2.0, 3.0):
        x[:] = value
        env.step({"x": (x,)})
    fresh.set_state(env.get_state())
    given = fresh.unwrapped.given  # type: ignore[attr-defined]
    assert [action["x"][0].item() for action in given] == [1.0, 2.0, 3.0]


def test_actions_are_stored_as_one_array_for_each_leaf() -> None:
    space = spaces.Tuple((spaces.Discrete(3), spaces.Box(-1, 1, (2,))))
    env = RecordedEpisodes(Echo(space, length=9), True)
    env.reset(seed=0)
    play(env, actions(space, 0, 7))
    number, box = env.get_state()["actions"]["items"]
    assert (number.shape, number.dtype) == ((7,), np.int64)
    assert (box.shape, box.dtype) == ((7, 2), np.float32)


# Rows.

COMPOSITE = spaces.Dict({"a": spaces.Tuple((spaces.Discrete(3), spaces.Box(-1, 1, (2,))))})


def composite() -> gymnasium.Env:
    return Echo(COMPOSITE)


def makers(env_id: str) -> list[Callable[[], gymnasium.Env]]:
    return [composite if env_id == "composite" else lambda: make(env_id)] * 3


def play_rows(envs: Any, moves: list[Any]) -> list[Any]:
    return [copy.deepcopy(envs.step(action)) for action in moves]


@pytest.mark.parametrize("env_id", [*GYMNASIUM, *OURS, "composite"])
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**31 - 4))
def test_rows_play_as_gymnasiums_loop_over_them_does(env_id: str, seed: int) -> None:
    rows = RowsVectorEnv(makers(env_id))
    loop = SyncVectorEnv(
        [lambda make=make: RecordedEpisodes(make(), True) for make in makers(env_id)],
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    moves = actions(rows.action_space, seed, 60)
    assert_same(rows.reset(seed=seed), loop.reset(seed=seed))
    assert_same(play_rows(rows, moves), play_rows(loop, moves))
    some = {"reset_mask": np.array([True, False, True])}
    assert_same(rows.reset(options=dict(some)), loop.reset(options=dict(some)))
    assert rows.metadata == loop.metadata


@pytest.mark.parametrize("env_id", [*ANY, "composite"])
@settings(max_examples=4, deadline=None)
@anywhere
def test_rows_go_on_exactly_in_a_fresh_copy(env_id: str, seed: int, k: int, m: int) -> None:
    rows, fresh = RowsVectorEnv(makers(env_id)), RowsVectorEnv(makers(env_id))
    moves = actions(rows.action_space, seed, k + m)
    rows.reset(seed=[seed, 5, 6])
    play_rows(rows, moves[:k])
    state = copy.deepcopy(rows.get_state())
    one = {"reset_mask": np.array([False, True, False])}
    straight = [rows.reset(options=dict(one)), play_rows(rows, moves[k:])]
    for _ in range(2):
        fresh.set_state(state)
        assert_same([fresh.reset(options=dict(one)), play_rows(fresh, moves[k:])], straight)


def test_rows_return_arrays_that_they_never_change() -> None:
    rows = RowsVectorEnv(makers("CartPole-v1"))
    rows.reset(seed=0)
    first = rows.step(np.zeros(3, int))
    kept = copy.deepcopy(first)
    play_rows(rows, [np.ones(3, int)] * 30)
    assert_same(first, kept)


@pytest.mark.parametrize("env_id", OURS)
def test_our_vector_environments_give_their_state_before_the_first_reset(env_id: str) -> None:
    envs, fresh = (make_vec(env_id, 3, **OURS[env_id]).unwrapped for _ in range(2))
    state = copy.deepcopy(envs.get_state())  # type: ignore[attr-defined]
    straight = envs.reset()
    for _ in range(2):  # the second time into a copy that has been used
        fresh.set_state(state)  # type: ignore[attr-defined]
        assert_same(fresh.reset(), straight)
