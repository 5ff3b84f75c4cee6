"""`MovieLensBandit`: a contextual bandit of the most-rated films of MovieLens-100k."""

from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from palaestra.envs.contextual.env import RatingsEnv, RatingsVectorEnv
from palaestra.envs.contextual.features import signed_svd, user_features
from palaestra.envs.contextual.movielens_data import (
    NUM_USERS,
    MovieLens,
    display_names,
    find_data,
    read,
)
from palaestra.envs.contextual.task import RatingsTask

Fill = Literal["zero", "mean", "als"]

TRAIN_USERS = 100
"""The first users are for training and the others for evaluation, as in BanditBench."""


class Ratings(NamedTuple):
    """What every episode is drawn from."""

    rewards: np.ndarray  # [943, K]
    features: np.ndarray  # [943, d]
    movies: np.ndarray  # [K]


class MovieLensTask(RatingsTask):
    """Ratings of the K most-rated films, from one low-rank matrix for all instances."""

    rank: int = Field(20, ge=1, description="Rank of the matrix of ratings; K if that is smaller.")
    fill: Fill = Field("zero", description="What stands where a user has not rated a film.")
    users_from: Literal["evaluation", "train", "all"] = Field(
        "evaluation", description="Users 100 to 942, 0 to 99, or all."
    )
    names: Literal["title", "snake"] = Field(
        "title", description="Style of the names: 'Star Wars (1977)' or 'star_wars_(1977)'."
    )
    path: str | None = Field(
        None, description="Folder with the data; without it, that of an installed recbole."
    )

    def ratings(self) -> Ratings:
        """Return the matrix of ratings with its features.

        Raises:
          UserError: the data is missing or damaged.
        """
        return _ratings(find_data(self.path), self.K, self.rank, self.fill)

    def action_names(self) -> tuple[str, ...]:
        """Return the titles of the K films."""
        return display_names(_data(find_data(self.path)), self.ratings().movies, self.names)

    def context_bound(self) -> np.ndarray:
        """Return the largest absolute value of each feature, `[d]`."""
        return np.abs(self.ratings().features).max(axis=0)

    def reward_range(self) -> tuple[float, float]:
        """Return bounds that no reward exceeds."""
        rewards = self.ratings().rewards
        return float(rewards.min()), float(rewards.max())

    def episodes(self, seeds: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return rewards `[N, T, K]` and contexts `[N, T, d]` of the instances."""
        first = TRAIN_USERS if self.users_from == "evaluation" else 0
        end = TRAIN_USERS if self.users_from == "train" else NUM_USERS
        users = first + self.users(seeds, indices, end - first)
        rewards, features, _ = self.ratings()
        return rewards[users], features[users].astype(np.float32)


@lru_cache(maxsize=2)
def _data(folder: Path) -> MovieLens:
    return read(folder)


@lru_cache(maxsize=16)
def _ratings(folder: Path, K: int, rank: int, fill: Fill) -> Ratings:
    """Return rewards and features of the K most-rated films, the lower number first in a tie."""
    data = _data(folder)
    movies = np.argsort(-np.bincount(data.movie), kind="stable")[:K]
    R = np.full((NUM_USERS, K), np.nan)
    for k, movie in enumerate(movies):
        rated = data.movie == movie
        R[data.user[rated], k] = data.rating[rated]
    return Ratings(*low_rank(filled(R, fill, rank), rank), movies)


def filled(R: np.ndarray, fill: Fill, rank: int) -> np.ndarray:
    """Return ratings `[n, K]` with NaN replaced.

    "zero" makes an unrated film a bad one, so that the reward mostly says whether the user rated it
    (BanditBench); "mean" takes the mean rating of the film; "als" predicts it.
    """
    if fill == "zero":
        return np.nan_to_num(R, nan=0.0)
    with_means = np.where(np.isnan(R), np.nanmean(R, axis=0), R)
    if fill == "mean":
        return with_means
    return np.where(np.isnan(R), _predicted(R, with_means, min(rank, R.shape[1])), R)


def _predicted(R: np.ndarray, start: np.ndarray, rank: int, sweeps: int = 20) -> np.ndarray:
    """Return ratings predicted by alternating least squares (Zhou et al. 2008), ridge 0.1 n.

    Film means are taken out first, so that the ridge draws towards them; `start` has no NaN.
    """
    known = ~np.isnan(R)
    mean = np.nanmean(R, axis=0)
    residual = np.where(known, R - mean, 0.0)
    V = np.linalg.svd(start - start.mean(), full_matrices=False)[2][:rank].T  # [K, rank]
    for _ in range(sweeps):
        U = _ridge(V, residual, known)
        V = _ridge(U, residual.T, known.T)
    return (mean + U @ V.T).clip(1.0, 5.0)


def _ridge(F: np.ndarray, targets: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return for each row of `targets [m, n]` its regression on `F [n, rank]` where known."""
    weight = 0.1 * np.maximum(known.sum(axis=1), 1)
    gram = np.einsum("mn,ni,nj->mij", known, F, F, optimize=True)
    gram += weight[:, None, None] * np.eye(F.shape[1])
    return np.linalg.solve(gram, (targets @ F)[:, :, None])[:, :, 0]


def low_rank(R: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the best approximation of R `[n, K]` of a rank, and its features `[n, d]`."""
    U, s, Vt = signed_svd(R)
    d = min(rank, R.shape[1])
    # At full rank the product would be R but for rounding.
    approximation = R if d == R.shape[1] else (U[:, :d] * s[:d]) @ Vt[:d]
    return approximation, user_features(U, d)


class MovieLensBanditEnv(RatingsEnv):
    """A contextual bandit: recommend one of the K most-rated films of MovieLens-100k to users.

    ## Description
    The matrix of 943 users and the K films with the most ratings is filled where a user has not
    rated a film, and approximated at rank `min(rank, K)`. Each step shows another user, drawn
    uniformly with replacement; the agent recommends a film and is paid the user's entry, without
    noise. Episode e of an environment seeded s is the instance (s, e): its users are a pure
    function of the two, its matrix is always the same. The construction is that of BanditBench
    (arXiv 2410.06238) but for the order of users, which is that of the data set. With `rank >= K`
    and `fill="zero"`, the defaults, the reward *is* the zero-filled matrix.

    The data (F. M. Harper and J. A. Konstan, "The MovieLens Datasets", ACM TiiS 2015) may not be
    passed on: bring your own, see `path`.

    ## Action Space
    `Discrete(K)`: the film; `action_names` are the titles.

    ## Observation Space
    `Box(float32)`: the features of the user, then the history as in `GaussianBanditEnv`.

    | features | range |
    | --- | --- |
    | first d = min(rank, K) left singular vectors, times sqrt(943) [d] | that of the data |
    | `rl2`: one-hot last action [K], last reward, t / T | 0 to 1, that of R, 0 to 1 |
    | `summary`: N_a / T [K], means [K], t / T | 0 to 1, that of R, 0 to 1 |

    The features after the last step, which no user follows, are 0.

    ## Rewards
    The user's entry, 0 to 5 with the defaults. `info` holds `expected_reward` (the entry),
    `best_expected_reward` (the best film of this user), `regret`, `t`, `instance_seed`,
    `instance_index`.

    ## Starting State
    The first user with an empty history. `reset(seed=s)` begins instance (s, 0),
    `reset(seed=s, options={"index": i})` instance (s, i), each later `reset()` the next index.

    ## Episode End
    Terminates after T users. Never truncates.

    ## Arguments
    `K` (5), `T` (50), `observation` ("rl2"), `rank` (20), `fill` ("zero", "mean" or "als"),
    `users_from` ("evaluation", "train" or "all"), `names` ("title" or "snake"), `path` (a folder
    with RecBole's `ml-100k.inter` and `ml-100k.item` or GroupLens' `u.data` and `u.item`; without
    it the data of an installed recbole is used).

    ```python
    gymnasium.make("palaestra/MovieLensBandit-v0", K=10, path="~/data/ml-100k")
    ```

    ## Vector Version
    `MovieLensBanditVectorEnv`: row n seeded s plays what this environment seeded s plays.

    ## Version History
    * v0: first version.
    """

    Config: ClassVar[type[RatingsTask]] = MovieLensTask


class MovieLensBanditVectorEnv(RatingsVectorEnv):
    """N bandits over MovieLens-100k; see `MovieLensBanditEnv`."""

    Config: ClassVar[type[RatingsTask]] = MovieLensTask
