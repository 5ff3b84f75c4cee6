"""`SyntheticMovies`: a contextual bandit of invented users and films with low-rank ratings."""

from typing import ClassVar

import numpy as np

from palaestra.envs.contextual.env import RatingsEnv, RatingsVectorEnv
from palaestra.envs.contextual.features import signed_svd, user_features
from palaestra.envs.contextual.task import RatingsTask

NUM_USERS, RANK = 512, 5

_FIRST = ("Amber", "Broken", "Crimson", "Distant", "Electric", "Frozen", "Golden", "Hidden")
_SECOND = ("Harbour", "Lantern", "Orchard", "Signal", "Theatre", "Voyage", "Winter")


class SyntheticMoviesTask(RatingsTask):
    """Ratings of an instance: `R = clip(3 + b + 0.8 P Q^T, 0.5, 5)`, one matrix per instance."""

    def action_names(self) -> tuple[str, ...]:
        """Return the titles of the K films."""
        titles = [f"{first} {second}" for second in _SECOND for first in _FIRST]
        return tuple(
            titles[k % len(titles)] + (f" {k // len(titles) + 1}" if k >= len(titles) else "")
            for k in range(self.K)
        )

    def context_bound(self) -> np.ndarray:
        """Return the largest absolute value of each feature, `[d]`."""
        return np.full(min(RANK + 1, self.K), np.sqrt(NUM_USERS))

    def reward_range(self) -> tuple[float, float]:
        """Return bounds that no reward exceeds."""
        return 0.5, 5.0

    def episodes(self, seeds: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return rewards `[N, T, K]` and contexts `[N, T, d]` of the instances."""
        users = self.users(seeds, indices, NUM_USERS)
        rewards = np.empty((len(seeds), self.T, self.K))
        contexts = np.empty((len(seeds), self.T, min(RANK + 1, self.K)), np.float32)
        for n, (seed, index) in enumerate(zip(seeds.tolist(), indices.tolist(), strict=True)):
            R = ratings(seed, index, self.K)
            rewards[n] = R[users[n]]
            contexts[n] = features(R)[users[n]]
        return rewards, contexts


def ratings(seed: int, index: int, K: int) -> np.ndarray:
    """Return the ratings of instance (seed, index), `[NUM_USERS, K]`."""
    g = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
    P = g.standard_normal((NUM_USERS, RANK))
    Q = g.standard_normal((K, RANK)) / np.sqrt(RANK)
    b = 0.5 * g.standard_normal(K)
    return (3.0 + b + 0.8 * P @ Q.T).clip(0.5, 5.0)


def features(R: np.ndarray) -> np.ndarray:
    """Return the features of the users with ratings R `[n, K]`, `[n, min(RANK + 1, K)]`."""
    return user_features(signed_svd(R)[0], min(RANK + 1, R.shape[1]))


class SyntheticMoviesEnv(RatingsEnv):
    """A contextual bandit: recommend one of K invented films to each of T invented users.

    ## Description
    Each episode has 512 users and K films with ratings `R = clip(3 + b + 0.8 P Q^T, 0.5, 5)`:
    `P ~ N(0, 1)` [512, 5], `Q ~ N(0, 1) / sqrt(5)` [K, 5], `b ~ 0.5 N(0, 1)` [K], drawn in this
    order. Each step shows another user, drawn uniformly with replacement; the agent recommends a
    film and is paid the user's rating, without noise. Episode e of an environment seeded s is the
    instance (s, e), matrix and users, a pure function of the two.

    ## Action Space
    `Discrete(K)`: the film; `action_names` are the titles.

    ## Observation Space
    `Box(float32)`: the features of the user, then the history as in `GaussianBanditEnv`.

    | features | range |
    | --- | --- |
    | first d = min(6, K) left singular vectors of R, times sqrt(512) [d] | +- sqrt(512) |
    | `rl2`: one-hot last action [K], last reward, t / T | 0 to 1, 0 to 5, 0 to 1 |
    | `summary`: N_a / T [K], means [K], t / T | 0 to 1, 0 to 5, 0 to 1 |

    The features after the last step, which no user follows, are 0.

    ## Rewards
    The user's rating, 0.5 to 5. `info` holds `expected_reward` (the rating), `best_expected_reward`
    (the best film of this user), `regret`, `t`, `instance_seed`, `instance_index`.

    ## Starting State
    The first user with an empty history. `reset(seed=s)` begins instance (s, 0),
    `reset(seed=s, options={"index": i})` instance (s, i), each later `reset()` the next index.

    ## Episode End
    Terminates after T users. Never truncates.

    ## Arguments
    `K` (5), `T` (50), `observation` ("rl2").

    ```python
    gymnasium.make("palaestra/SyntheticMovies-v0", K=10)
    ```

    ## Vector Version
    `SyntheticMoviesVectorEnv`: row n seeded s plays what this environment seeded s plays.

    ## Version History
    * v0: first version.
    """

    Config: ClassVar[type[RatingsTask]] = SyntheticMoviesTask


class SyntheticMoviesVectorEnv(RatingsVectorEnv):
    """N synthetic contextual bandits; see `SyntheticMoviesEnv`."""

    Config: ClassVar[type[RatingsTask]] = SyntheticMoviesTask
