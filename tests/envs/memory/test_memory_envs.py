"""What holds for every memory environment."""

import copy
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from palaestra.envs import make_vec
from palaestra.errors import UserError

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("Recall", {}),
    ("Recall", {"K": 2, "gap": 0}),
    ("Recall", {"K": 7, "gap": 3, "distractors": False}),
    ("TMaze", {"length": 2}),
    ("TMaze", {"length": 1, "limit": 3}),
    ("RepeatPrevious", {}),
    ("RepeatPrevious", {"k": 1, "K": 3, "T": 5}),
    ("CountRecall", {}),
    ("CountRecall", {"K": 3, "copies": 2}),
]

every_variant = pytest.mark.parametrize(
    ("env_id", "options"), [(f"palaestra/{name}-v0", options) for name, options in VARIANTS]
)


def single(env_id: str, **options: Any) -> Any:
    return gymnasium.make(env_id, **options).unwrapped


@every_variant
def test_the_environment_checker_finds_nothing(env_id: str, options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(single(env_id, **options))


@every_variant
def test_rows_play_exactly_what_single_environments_play(
    env_id: str, options: dict[str, Any]
) -> None:
    rng, N = np.random.default_rng(0), 6
    native = make_vec(env_id, N, **options)
    loop = SyncVectorEnv(
        [lambda: single(env_id, **options)] * N, autoreset_mode=AutoresetMode.SAME_STEP
    )
    one, other = native.reset(seed=11), loop.reset(seed=11)
    assert_same(one[0], other[0])
    assert_same_infos(one[1], other[1])
    for _ in range(150):
        # Half of the rows act well: they come far.
        right = np.maximum(one[-1]["answer"], 0)
        actions = np.where(np.arange(N) < 3, right, rng.integers(native.single_action_space.n))
        one, other = native.step(actions), loop.step(actions)
        for x, y in zip(one[:-1], other[:-1], strict=True):
            assert_same(x, y)
        assert_same_infos(one[-1], other[-1])


def assert_same(x: np.ndarray, y: np.ndarray) -> None:
    assert x.dtype == y.dtype
    assert np.array_equal(x, y)


def assert_same_infos(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert ("final_info" in one) == ("final_info" in other)
    for name in ("answer", "t", "instance_seed", "instance_index"):
        assert np.array_equal(one[name], other[name]), name
    if "final_info" in one:
        done = one["_final_info"]
        assert np.array_equal(done, other["_final_info"])
        assert np.array_equal(one["_final_obs"], other["_final_obs"])
        assert np.array_equal(one["final_obs"][done], np.stack(other["final_obs"][done]))
        for name in ("answer", "t", "instance_seed", "instance_index"):
            assert np.array_equal(one["final_info"][name][done], other["final_info"][name][done])


@every_variant
def test_an_instance_is_a_function_of_seed_and_index(env_id: str, options: dict[str, Any]) -> None:
    env = single(env_id, **options)
    env.reset(seed=3)
    played = []
    for _ in range(4):
        played.append(episode(env))
        env.reset()
    jumped = single(env_id, **options)
    jumped.reset(seed=3, options={"index": 2})
    assert episode(jumped) == played[2]
    rows = make_vec(env_id, 3, **options)
    _, infos = rows.reset(seed=[3, 3, 9], options={"index": np.array([3, 1, 0])})
    assert infos["instance_seed"].tolist() == [3, 3, 9]
    assert infos["instance_index"].tolist() == [3, 1, 0]
    observations, rewards, *_ = rows.step(np.maximum(infos["answer"], 0))
    for row, index in enumerate((3, 1)):
        seen, paid, *_ = played[index][0]
        assert rewards[row] == paid
        assert len(played[index]) == 1 or observations[row].tolist() == seen


def episode(env: Any) -> list[Any]:
    """Play the right actions to the end and return all that was seen and paid."""
    done, answer, seen = False, env._info()["answer"], []
    while not done:
        observation, reward, terminated, truncated, info = env.step(max(answer, 0))
        done, answer = terminated or truncated, info["answer"]
        seen.append((np.asarray(observation).tolist(), reward, terminated, truncated, info))
    return seen


@every_variant
def test_instances_differ(env_id: str, options: dict[str, Any]) -> None:
    env = single(env_id, **options)
    env.reset(seed=0)
    answers = set()
    for _ in range(40):
        answers.add(tuple(step[-1]["answer"] for step in episode(env)))
        env.reset()
    assert len(answers) > 1


@every_variant
def test_a_restored_environment_goes_on_exactly(env_id: str, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    for make in (lambda: single(env_id, **options), lambda: make_vec(env_id, 4, **options)):
        env, fresh = make(), make()
        env.reset(seed=2)
        actions = [env.action_space.sample() for _ in range(150)]
        go_on = int(rng.integers(50, 100))
        for a in actions[:go_on]:
            step_through(env, a)
        fresh.set_state(copy.deepcopy(env.get_state()))
        for a in actions[go_on:]:
            for x, y in zip(step_through(env, a), step_through(fresh, a), strict=True):
                assert np.array_equal(x, y)


def step_through(env: Any, action: Any) -> tuple[Any, ...]:
    """Step, and reset a single environment that has ended, as autoreset does."""
    observation, reward, terminated, truncated, info = env.step(action)
    if terminated is True or truncated is True:
        observation, info = env.reset()
    return observation, reward, terminated, truncated, info["answer"], info["instance_index"]


@every_variant
def test_the_state_before_the_first_reset_is_a_state_too(
    env_id: str, options: dict[str, Any]
) -> None:
    for make in (lambda: single(env_id, **options), lambda: make_vec(env_id, 4, **options)):
        env, fresh = make(), make()
        fresh.set_state(copy.deepcopy(env.get_state()))
        (one, first), (other, second) = env.reset(), fresh.reset()
        assert np.array_equal(one, other)
        assert np.array_equal(first["instance_seed"], second["instance_seed"])


@every_variant
def test_what_was_returned_is_never_overwritten_and_never_read(
    env_id: str, options: dict[str, Any]
) -> None:
    spoiled, clean = make_vec(env_id, 3, **options), make_vec(env_id, 3, **options)
    spoiled.reset(seed=0)
    clean.reset(seed=0)
    kept, taken = [], []
    for _ in range(60):
        action = clean.action_space.sample()
        one, other = spoiled.step(action), clean.step(action)
        kept.append(other)
        taken.append(copy.deepcopy(other))
        assert all(np.array_equal(x, y) for x, y in zip(one[:-1], other[:-1], strict=True))
        for array in [*one[:-1], *(x for x in one[-1].values() if isinstance(x, np.ndarray))]:
            array[...] = 1
    assert repr(kept) == repr(taken)


@every_variant
def test_the_answer_tells_nothing_after_the_end(env_id: str, options: dict[str, Any]) -> None:
    env = single(env_id, **options)
    env.reset(seed=0)
    assert episode(env)[-1][-1]["answer"] == -1
    with pytest.raises(ResetNeeded):
        env.step(0)


def test_stepping_before_a_reset_is_refused() -> None:
    with pytest.raises(ResetNeeded):
        single("palaestra/Recall-v0").step(0)
    with pytest.raises(ResetNeeded):
        make_vec("palaestra/TMaze-v0", 2).step(np.zeros(2, int))


@pytest.mark.parametrize("action", [-1, 4, 1.0, "a", None])
def test_a_single_action_out_of_range_is_refused(action: Any) -> None:
    env = single("palaestra/TMaze-v0")
    env.reset(seed=0)
    with pytest.raises(UserError, match="0 to 3"):
        env.step(action)


@pytest.mark.parametrize("actions", [[0, 4], [-1, 0], [0.0, 1.0], [0], [[0], [1]]])
def test_actions_out_of_range_are_refused(actions: Any) -> None:
    envs = make_vec("palaestra/Recall-v0", 2)
    envs.reset(seed=0)
    with pytest.raises(UserError, match="actions"):
        envs.step(np.array(actions))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Recall", {"gap": -1}, "gap: -1"),
        ("Recall", {"K": 1}, "K: 1"),
        ("TMaze", {"length": 0}, "length: 0"),
        ("TMaze", {"length": 5, "limit": 5}, "limit = 5"),
        ("TMaze", {"lenght": 3}, "did you mean 'length'"),
        ("RepeatPrevious", {"k": 52}, "T = 52 must be larger than k = 52"),
        ("CountRecall", {"copies": 0}, "copies: 0"),
    ],
)
def test_wrong_options_are_refused_by_name(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make_vec(f"palaestra/{name}-v0", 2, **options)


@pytest.mark.parametrize(
    ("reset", "name"),
    [
        ({"options": {"indx": 1}}, "indx"),
        ({"options": {"index": -1}}, "index"),
        ({"options": {"index": np.zeros(3, int)}}, "index"),
        ({"seed": [1]}, "seed"),
        ({"seed": [1, -2]}, "seed"),
    ],
)
def test_a_reset_that_is_not_accepted_names_what_is_wrong(reset: Any, name: str) -> None:
    with pytest.raises(UserError, match=name):
        make_vec("palaestra/Recall-v0", 2).reset(**reset)


def test_without_a_seed_environments_differ_and_go_on_from_index_zero() -> None:
    env = make_vec("palaestra/CountRecall-v0", 2)
    _, infos = env.reset()
    assert infos["instance_seed"][0] != infos["instance_seed"][1]
    assert (infos["instance_index"] == 0).all()
    _, infos = env.reset()
    assert (infos["instance_index"] == 1).all()
