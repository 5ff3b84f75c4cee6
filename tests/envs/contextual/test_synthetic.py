import copy
import math
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from palaestra.envs import make_vec
from palaestra.envs.contextual.synthetic import NUM_USERS, features, ratings

ENV = "palaestra/SyntheticMovies-v0"


@pytest.mark.parametrize("options", [{}, {"observation": "summary", "K": 8, "T": 13}], ids=str)
def test_rows_play_exactly_what_single_environments_play(options: dict[str, Any]) -> None:
    rng, N = np.random.default_rng(0), 4
    native = make_vec(ENV, N, **options)
    loop = SyncVectorEnv(
        [lambda: gymnasium.make(ENV, **options).unwrapped] * N,
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    one, other = native.reset(seed=4), loop.reset(seed=4)
    for _ in range(110):
        assert all(np.array_equal(x, y) for x, y in zip(one[:-1], other[:-1], strict=True))
        assert np.array_equal(one[-1]["regret"], other[-1]["regret"])
        assert one[0] in native.observation_space
        actions = rng.integers(native.single_action_space.n, size=N)
        one, other = native.step(actions), loop.step(actions)
        if "final_obs" in one[-1]:
            assert np.array_equal(one[-1]["final_obs"], np.stack(other[-1]["final_obs"]))


@pytest.mark.parametrize("observation", ["rl2", "summary"])
def test_the_environment_checker_finds_nothing(observation: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(ENV, observation=observation).unwrapped)


@pytest.mark.parametrize("K", [2, 5, 10])
def test_features_are_left_singular_vectors_times_the_root_of_the_number_of_users(K: int) -> None:
    R = ratings(3, 1, K)
    x, d = features(R) / math.sqrt(NUM_USERS), min(6, K)
    assert x.shape == (NUM_USERS, d)
    assert np.allclose(x.T @ x, np.eye(d), rtol=0, atol=1e-12)
    squares = np.linalg.eigvalsh(R.T @ R)[::-1][:d]
    # Left singular vectors are the eigenvectors of R R^T.
    assert np.allclose(R @ (R.T @ x), x * squares, rtol=0, atol=1e-12 * squares[0])


def test_a_step_shows_a_users_features_and_pays_that_users_rating() -> None:
    env: Any = gymnasium.make(ENV, K=10).unwrapped
    R = ratings(7, 2, 10)
    x = features(R).astype(np.float32)
    observation, _ = env.reset(seed=7, options={"index": 2})
    users = set()
    for t in range(50):
        user = int(np.abs(x - observation[:6]).sum(axis=1).argmin())
        assert np.array_equal(x[user], observation[:6])
        users.add(user)
        observation, r, terminated, _, info = env.step(t % 10)
        assert r == info["expected_reward"] == R[user, t % 10]
        assert info["best_expected_reward"] == R[user].max()
    assert terminated
    assert not observation[:6].any()
    assert len(users) > 40  # a new user at each step


@pytest.mark.parametrize(
    ("K", "uniform", "fixed"), [(5, 52.4, 23.9), (10, 68.2, 29.9), (20, 79.0, 33.4)]
)
def test_uniform_play_and_the_best_film_have_their_reference_regrets(
    K: int, uniform: float, fixed: float
) -> None:
    matrices = [ratings(seed, 0, K) for seed in range(300)]
    best_film = [R[:, R.mean(axis=0).argmax()] for R in matrices]
    regrets = {
        uniform: [50 * (R.max(axis=1) - R.mean(axis=1)).mean() for R in matrices],
        fixed: [50 * (R.max(axis=1) - r).mean() for R, r in zip(matrices, best_film, strict=True)],
    }
    for published, values in regrets.items():
        # Both sides come from 300 matrices; the published one is rounded to 0.1.
        error = np.std(values) * math.sqrt(2 / 300)
        assert abs(np.mean(values) - published) < 4 * error + 0.05


def test_uniform_play_of_the_environment_has_the_reference_regret() -> None:
    envs, rng, total = make_vec(ENV, 300), np.random.default_rng(0), np.zeros(300)
    envs.reset(seed=1000)
    for _ in range(50):
        _, _, done, _, infos = envs.step(rng.integers(5, size=300))
        total += (infos["final_info"] if done.all() else infos)["regret"]
    assert abs(total.mean() - 52.4) < 4 * total.std() * math.sqrt(2 / 300) + 0.05


def test_a_restored_environment_goes_on_exactly() -> None:
    for make in (lambda: gymnasium.make(ENV).unwrapped, lambda: make_vec(ENV, 3)):
        env: Any = make()
        fresh: Any = make()
        env.reset(seed=2, options={"index": 5})
        actions = [env.action_space.sample() for _ in range(49)]
        for a in actions[:20]:
            env.step(a)
        fresh.set_state(copy.deepcopy(env.get_state()))
        for a in actions[20:]:
            one, other = env.step(a), fresh.step(a)
            assert all(np.array_equal(x, y) for x, y in zip(one[:-1], other[:-1], strict=True))


def test_titles_are_distinct() -> None:
    env: Any = gymnasium.make(ENV, K=120).unwrapped
    assert len(set(env.action_names)) == 120
