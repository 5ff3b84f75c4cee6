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

IDS = ["palaestra/GaussianBandit-v0", "palaestra/BernoulliBandit-v0"]
VARIANTS: list[dict[str, Any]] = [
    {},
    {"tape": "per_step"},
    {"observation": "summary"},
    {"K": 3, "T": 1},
]

every_bandit = pytest.mark.parametrize("env_id", IDS)
every_variant = pytest.mark.parametrize("options", VARIANTS, ids=str)


def single(env_id: str, **options: Any) -> Any:
    return gymnasium.make(env_id, **options).unwrapped


def play(env: Any, actions: Any) -> np.ndarray:
    return np.array([env.step(a)[1] for a in actions])


@every_bandit
@every_variant
def test_the_environment_checker_finds_nothing(env_id: str, options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(single(env_id, **{**options, "T": 50}))


@every_bandit
@every_variant
def test_rows_play_exactly_what_single_environments_play(
    env_id: str, options: dict[str, Any]
) -> None:
    rng, N = np.random.default_rng(0), 6
    native = make_vec(env_id, N, **options)
    loop = SyncVectorEnv(
        [lambda: single(env_id, **options)] * N, autoreset_mode=AutoresetMode.SAME_STEP
    )
    pairs = [(native.reset(seed=11), loop.reset(seed=11))]
    for _ in range(120):
        actions = rng.integers(native.single_action_space.n, size=N)
        pairs.append((native.step(actions), loop.step(actions)))
    for one, other in pairs:
        for x, y in zip(one[:-1], other[:-1], strict=True):
            assert np.array_equal(x, y)
        assert_same_infos(one[-1], other[-1])


def assert_same_infos(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert ("final_info" in one) == ("final_info" in other)
    for name, values in one.items():
        if name == "final_info":
            assert_same_infos(values, other[name])
        elif name == "final_obs":
            assert np.array_equal(values, np.stack(other[name]))
        else:
            assert np.array_equal(values, other[name]), name


@every_bandit
def test_the_nth_pull_of_an_arm_pays_the_same_under_any_policy(env_id: str) -> None:
    env, rng = single(env_id), np.random.default_rng(0)
    env.reset(seed=5)
    alone = play(env, [2] * 20)
    env.reset(seed=5)
    actions = rng.integers(5, size=50)
    mixed = play(env, actions)[actions == 2]
    assert np.array_equal(mixed, alone[: len(mixed)])


def test_a_tape_per_step_pays_the_noise_of_the_step() -> None:
    env = single(IDS[0], tape="per_step", sigma=2.0)
    noises = []
    for actions in ([0] * 50, [0, 1, 2, 3, 4] * 10):
        env.reset(seed=5)
        steps = [env.step(a) for a in actions]
        noises.append([step[1] - step[4]["expected_reward"] for step in steps])
    assert np.allclose(*noises, rtol=0, atol=1e-14)


@every_bandit
def test_an_instance_is_a_function_of_seed_and_index(env_id: str) -> None:
    actions = [0, 1, 2, 3, 4] * 10
    env = single(env_id)
    env.reset(seed=3)
    played = []
    for _ in range(4):
        played.append(play(env, actions))
        env.reset()
    jumped = single(env_id)
    jumped.reset(seed=3, options={"index": 2})
    assert np.array_equal(play(jumped, actions), played[2])
    vector = make_vec(env_id, 3)
    vector.reset(seed=[3, 3, 9], options={"index": np.array([3, 1, 0])})
    rows = np.array([vector.step(np.full(3, a))[1] for a in actions])
    assert np.array_equal(rows[:, 0], played[3])
    assert np.array_equal(rows[:, 1], played[1])
    assert not np.array_equal(played[0], played[1])


@every_bandit
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
    observation, r, terminated, _, _ = env.step(action)
    if terminated is True:
        observation, _ = env.reset()
    return observation, r, terminated


@every_bandit
@every_variant
def test_what_was_returned_is_never_overwritten(env_id: str, options: dict[str, Any]) -> None:
    env = make_vec(env_id, 3, **options)
    kept = [env.reset(seed=0)]
    taken = copy.deepcopy(kept)
    for _ in range(60):
        kept.append(env.step(env.action_space.sample()))  # type: ignore[arg-type]
        taken.append(copy.deepcopy(kept[-1]))
    for one, other in zip(kept, taken, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(one[:-1], other[:-1], strict=True))
        assert_same_infos(one[-1], other[-1])


def test_writing_into_what_was_returned_changes_nothing() -> None:
    spoiled, clean = make_vec(IDS[0], 3), make_vec(IDS[0], 3)
    spoiled.reset(seed=0)
    clean.reset(seed=0)
    for _ in range(120):
        action = clean.action_space.sample()
        one, other = spoiled.step(action), clean.step(action)
        assert all(np.array_equal(x, y) for x, y in zip(one[:-1], other[:-1], strict=True))
        for array in [*one[:-1], *(x for x in one[-1].values() if isinstance(x, np.ndarray))]:
            array[...] = 1


@every_bandit
@pytest.mark.parametrize("kind", ["rl2", "summary"])
def test_observations_are_what_their_definition_says(env_id: str, kind: str) -> None:
    env, rng = single(env_id, observation=kind, K=4, T=20), np.random.default_rng(0)
    first, _ = env.reset(seed=0)
    assert not first.any()
    pulls: list[list[float]] = [[] for _ in range(4)]
    for t in range(1, 21):
        a = int(rng.integers(4))
        observation, r, *_ = env.step(a)
        pulls[a].append(r)
        if kind == "rl2":
            expected = [*(1.0 if k == a else 0.0 for k in range(4)), r, t / 20]
        else:
            means = [np.mean(p) if p else 0.0 for p in pulls]
            expected = [*(len(p) / 20 for p in pulls), *means, t / 20]
        assert np.allclose(observation, expected, rtol=1e-6, atol=0)
        assert observation in env.observation_space


@every_bandit
def test_regret_is_the_gap_to_the_best_arm_of_the_instance(env_id: str) -> None:
    env = single(env_id)
    env.reset(seed=8)
    expected = [env.step(a)[4] for a in range(5)]
    means = [info["expected_reward"] for info in expected]
    for t, info in enumerate(expected, start=1):
        assert info["best_expected_reward"] == max(means)
        assert info["regret"] == max(means) - info["expected_reward"]
        assert (info["t"], info["instance_seed"], info["instance_index"]) == (t, 8, 0)


@every_bandit
def test_an_episode_terminates_at_its_horizon_and_not_before(env_id: str) -> None:
    env = single(env_id, T=7)
    env.reset(seed=0)
    ends = [env.step(0)[2:4] for _ in range(7)]
    assert ends == [(False, False)] * 6 + [(True, False)]
    with pytest.raises(ResetNeeded):
        env.step(0)


def test_stepping_before_a_reset_is_refused() -> None:
    with pytest.raises(ResetNeeded):
        single(IDS[0]).step(0)
    with pytest.raises(ResetNeeded):
        make_vec(IDS[0], 2).step(np.zeros(2, int))


def test_the_average_reward_of_an_arm_is_its_expected_reward() -> None:
    for env_id, sd in zip(IDS, (3.0, 0.5), strict=True):
        env = single(env_id, T=20_000, **({"sigma": 3.0} if env_id == IDS[0] else {}))
        env.reset(seed=0)
        expected = env.step(1)[4]["expected_reward"]
        rewards = play(env, [1] * 19_999)
        assert abs(rewards.mean() - expected) < 4 * sd / np.sqrt(len(rewards))


@pytest.mark.parametrize("action", [-1, 5, 1.0, "a", None])
def test_a_single_action_that_is_no_arm_is_refused(action: Any) -> None:
    env = single(IDS[0])
    env.reset(seed=0)
    with pytest.raises(UserError, match="0 to 4"):
        env.step(action)


@pytest.mark.parametrize("actions", [[0, 5], [-1, 0], [0.0, 1.0], [0], [[0], [1]]])
def test_actions_that_are_not_arms_are_refused(actions: Any) -> None:
    envs = make_vec(IDS[0], 2)
    envs.reset(seed=0)
    with pytest.raises(UserError, match="actions"):
        envs.step(np.array(actions))


@pytest.mark.parametrize(
    ("reset", "name"),
    [
        ({"options": {"indx": 1}}, "indx"),
        ({"options": {"index": -1}}, "index"),
        ({"options": {"index": 0.5}}, "index"),
        ({"options": {"index": np.zeros(3, int)}}, "index"),
        ({"seed": [1]}, "seed"),
        ({"seed": [1, -2]}, "seed"),
    ],
)
def test_a_reset_that_is_not_accepted_names_what_is_wrong(reset: Any, name: str) -> None:
    with pytest.raises(UserError, match=name):
        make_vec(IDS[0], 2).reset(**reset)


def test_without_a_seed_environments_differ_and_go_on_from_index_zero() -> None:
    env = make_vec(IDS[0], 2)
    _, infos = env.reset()
    assert infos["instance_seed"][0] != infos["instance_seed"][1]
    assert (infos["instance_index"] == 0).all()
    _, infos = env.reset()
    assert (infos["instance_index"] == 1).all()
