"""Laws on a small invented data set in both formats; figures where the real data is at hand."""

import math
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from palaestra.envs import make_vec
from palaestra.envs.contextual.movielens import MovieLensTask, filled, low_rank
from palaestra.envs.contextual.movielens_data import display_names, find_data, read
from palaestra.errors import UserError

ENV = "palaestra/MovieLensBandit-v0"
TITLES = ["Lantern, The", "Voyage", "Orchard", "Orchard", "Signal", "Winter"]


def invented_ratings() -> list[tuple[int, int, int]]:
    rng = np.random.default_rng(0)
    return [
        (user, movie, int(rng.integers(1, 6)))
        for user in range(1, 944)
        for movie in range(1, 7)
        if rng.random() < 0.9 - 0.1 * movie
    ]


@pytest.fixture
def recbole_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "recbole"
    folder.mkdir()
    inter = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    inter += [f"{user}\t{movie}\t{rating}\t0" for user, movie, rating in invented_ratings()]
    item = ["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"]
    item += [f"{i}\t{title}\t1999\tDrama" for i, title in enumerate(TITLES, start=1)]
    (folder / "ml-100k.inter").write_text("\n".join(inter))
    (folder / "ml-100k.item").write_text("\n".join(item))
    return folder


@pytest.fixture
def grouplens_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "grouplens"
    folder.mkdir()
    data = [f"{user}\t{movie}\t{rating}\t0" for user, movie, rating in invented_ratings()]
    items = [f"{i}|{title} (1999)|01-Jan-1999" for i, title in enumerate(TITLES, start=1)]
    (folder / "u.data").write_text("\n".join(data))
    (folder / "u.item").write_text("\n".join(items), encoding="latin-1")
    return folder


def test_both_file_formats_give_the_same_data(recbole_folder: Path, grouplens_folder: Path) -> None:
    one, other = read(recbole_folder), read(grouplens_folder)
    assert np.array_equal(one.user, other.user)
    assert np.array_equal(one.movie, other.movie)
    assert np.array_equal(one.rating, other.rating)
    assert one.titles == other.titles


def test_names_have_their_articles_in_front_and_differ(recbole_folder: Path) -> None:
    data, movies = read(recbole_folder), np.arange(4)
    assert display_names(data, movies, "title") == (
        "The Lantern (1999)",
        "Voyage (1999)",
        "Orchard (1999)",
        "Orchard (1999) [4]",
    )
    assert display_names(data, movies, "snake")[0] == "the_lantern_(1999)"


def test_at_full_rank_the_reward_is_the_zero_filled_matrix(recbole_folder: Path) -> None:
    R = np.zeros((943, 6))
    for user, movie, rating in invented_ratings():
        R[user - 1, movie - 1] = rating
    task = MovieLensTask.from_options({"path": str(recbole_folder), "K": 4})
    assert np.array_equal(task.ratings().rewards, R[:, :4])  # film 1 has the most ratings
    features = task.ratings().features
    assert np.allclose(features.T @ features / 943, np.eye(4), rtol=0, atol=1e-12)


def test_a_lower_rank_gives_the_best_approximation_of_that_rank() -> None:
    R = np.random.default_rng(0).uniform(1, 5, (943, 6))
    approximation, features = low_rank(R, 2)
    s = np.linalg.svd(R, compute_uv=False)
    assert np.linalg.matrix_rank(approximation) == 2
    assert np.linalg.norm(R - approximation) == pytest.approx(math.hypot(*s[2:]), rel=1e-12)
    assert features.shape == (943, 2)


def test_filling_keeps_what_was_rated() -> None:
    rng = np.random.default_rng(0)
    full = rng.uniform(1, 5, (943, 6))
    R = np.where(rng.random(full.shape) < 0.3, np.nan, full)
    known = ~np.isnan(R)
    for fill in ("zero", "mean", "als"):
        result = filled(R, fill, 3)  # type: ignore[arg-type]
        assert np.array_equal(result[known], R[known])
        assert np.isfinite(result).all()


def test_least_squares_predict_low_rank_ratings_better_than_means_do() -> None:
    rng = np.random.default_rng(0)
    full = 3 + 0.5 * rng.standard_normal((943, 2)) @ rng.standard_normal((2, 8))
    full = full.clip(1, 5)
    missing = rng.random(full.shape) < 0.3
    R = np.where(missing, np.nan, full)
    errors = {
        fill: np.abs(filled(R, fill, 2) - full)[missing].mean()  # type: ignore[arg-type]
        for fill in ("mean", "als")
    }
    assert errors["als"] < 0.7 * errors["mean"]


def test_the_environment_checker_finds_nothing(recbole_folder: Path) -> None:
    check_env(gymnasium.make(ENV, path=str(recbole_folder)).unwrapped)


def test_rows_play_exactly_what_single_environments_play(recbole_folder: Path) -> None:
    options: dict[str, Any] = {"path": str(recbole_folder), "K": 4, "fill": "als", "rank": 2}
    native, singles = make_vec(ENV, 3, **options), []
    rows, _ = native.reset(seed=4)
    for n in range(3):
        env: Any = gymnasium.make(ENV, **options).unwrapped
        assert np.array_equal(env.reset(seed=4 + n)[0], rows[n])
        singles.append(env)
    for t in range(49):
        rows, rewards, *_ = native.step(np.full(3, t % 4))
        for n, env in enumerate(singles):
            observation, r, *_ = env.step(t % 4)
            assert np.array_equal(observation, rows[n])
            assert r == rewards[n]


def test_training_and_evaluation_users_are_disjoint(recbole_folder: Path) -> None:
    contexts = []
    for group in ("train", "evaluation"):
        task = MovieLensTask.from_options({"path": str(recbole_folder), "users_from": group})
        _, x = task.episodes(np.arange(50), np.zeros(50, np.int64))
        contexts.append({row.tobytes() for row in x.reshape(-1, x.shape[2])})
    features = MovieLensTask.from_options({"path": str(recbole_folder)}).ratings().features
    first = {row.tobytes() for row in features[:100].astype(np.float32)}
    rest = {row.tobytes() for row in features[100:].astype(np.float32)}
    assert contexts[0] <= first
    assert contexts[1] <= rest


def test_missing_data_is_answered_with_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palaestra.envs.contextual.movielens_data.find_spec", lambda name: None)
    with pytest.raises(UserError, match="recbole"):
        make_vec(ENV, 1)
    with pytest.raises(UserError, match=r"u\.data"):
        make_vec(ENV, 1, path=str(tmp_path))
    (tmp_path / "u.data").write_text("not a table")
    with pytest.raises(UserError, match="does not hold"):
        make_vec(ENV, 1, path=str(tmp_path))


def have_data() -> bool:
    try:
        find_data(None)
    except UserError:
        return False
    return True


@pytest.mark.skipif(not have_data(), reason="MovieLens-100k is not at hand")
@pytest.mark.parametrize(
    ("K", "reward", "uniform", "fixed"),
    [(5, 2.15, 100.1, 72.7), (10, 1.95, 132.0, 93.8), (20, 1.79, 147.8, 102.3)],
)
def test_movielens_has_its_reference_figures(
    K: int, reward: float, uniform: float, fixed: float
) -> None:
    R = MovieLensTask.from_options({"K": K}).ratings().rewards[100:]
    regret = R.max(axis=1, keepdims=True) - R
    best = R.mean(axis=0).argmax()
    # Published from some 300 episodes of 50 users; ours is their expectation.
    assert abs(R.mean() - reward) < 4 * R.std() / math.sqrt(300 * 50) + 0.005
    assert abs(50 * regret.mean() - uniform) < 4 * 0.9
    assert abs(50 * regret[:, best].mean() - fixed) < 4 * 0.9
