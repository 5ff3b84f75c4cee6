"""Multi-armed bandits, one at a time: `GaussianBanditEnv` and `BernoulliBanditEnv`."""

from typing import Any, ClassVar

import numpy as np

from palaestra.envs import noise
from palaestra.envs.bandits.families import (
    REWARDS,
    BernoulliFamily,
    Family,
    GaussianFamily,
    arm_keys,
)
from palaestra.envs.bandits.horizon import HorizonEnv


class BanditEnv(HorizonEnv):
    """A bandit of one family; the rewards of all its pulls are known once it has begun."""

    Config: ClassVar[type[Family]]

    def __init__(self, render_mode: str | None = None, **options: Any) -> None:
        self.family = self.Config.from_options(options)
        f = self.family
        super().__init__(f.K, f.T, f.observation, f.reward_range, render_mode=render_mode)

    def _begin(self) -> None:
        seed, index = np.array([self._seed], np.uint64), np.array([self._index], np.uint64)
        keys = noise.instance_keys(seed, index)
        means = self.family.means(keys)[0]
        number = np.arange(self.T, dtype=np.uint64)
        if self.family.tape == "per_arm":
            bits = noise.bits(arm_keys(keys, self.K)[0][:, None], number)
        else:
            bits = np.tile(noise.bits(noise.bits(keys, REWARDS), number), (self.K, 1))
        self._tape = self.family.rewards(means[:, None], bits).tolist()  # K lists of T rewards
        self._means = means.tolist()
        self._best = max(self._means)

    def _pull(self, action: int) -> tuple[float, float, float]:
        n = self._pulls[action] if self.family.tape == "per_arm" else self._t
        return self._tape[action][n], self._means[action], self._best


class GaussianBanditEnv(BanditEnv):
    """A K-armed bandit with Gaussian rewards.

    ## Description
    Each episode is a new bandit. For T steps the agent pulls one of K arms and is paid
    `r = mu_a + sigma * eps`, eps ~ N(0, 1). The means `mu` are drawn from
    `prior_scale * U(0, 1)` or `prior_scale * N(0, 1)` when the episode begins.

    Episode e of an environment seeded s is the instance (s, e), a pure function of the two. The
    noise is numbered too: with `tape="per_arm"` the n-th pull of an arm pays the same under any
    policy, so that two policies on one instance are compared on paired noise; with
    `tape="per_step"` the steps are numbered.

    ## Action Space
    `Discrete(K)`: the arm to pull.

    ## Observation Space
    `Box(float32)`, by `observation`:

    | kind | features | range |
    | --- | --- | --- |
    | `rl2` (default) | one-hot last action [K] | 0, 1 |
    | | last reward | bounds of the reward |
    | | t / T | 0 to 1 |
    | `summary` | share of pulls N_a / T [K] | 0 to 1 |
    | | empirical means [K], 0 if untried | bounds of the reward |
    | | t / T | 0 to 1 |

    ## Rewards
    What the arm pays. `info` holds what the agent must not see: `expected_reward`,
    `best_expected_reward`, `regret` (their difference, the pseudo-regret of the step), `t`,
    `instance_seed`, `instance_index`. After a reset, when nothing was pulled, the first three are
    0.

    ## Starting State
    Zeros. `reset(seed=s)` begins instance (s, 0), `reset(seed=s, options={"index": i})` instance
    (s, i), and each later `reset()` the next index.

    ## Episode End
    Terminates after T pulls: the horizon belongs to the task. Never truncates.

    ## Arguments
    `preset` (default `paper-text-medium`) names a task of `BANDIT_PRESETS`; `K`, `T`, `mean_prior`
    ("uniform01" or "normal"), `prior_scale`, `sigma`, `tape` and `observation` override it.

    ```python
    gymnasium.make("palaestra/GaussianBandit-v0", preset="banditbench-gaussian-low", K=20)
    ```

    ## Vector Version
    `GaussianBanditVectorEnv`: row n seeded s plays what this environment seeded s plays.

    ## Version History
    * v0: first version.
    """

    Config = GaussianFamily


class BernoulliBanditEnv(BanditEnv):
    """A K-armed bandit that pays 0 or 1.

    ## Description
    Each episode is a new bandit. For T steps the agent pulls one of K arms and is paid
    `r = 1[u < p_a]`, u ~ U(0, 1). One arm, drawn uniformly when the episode begins, has
    `p = 0.5 + gap / 2`, all others `p = 0.5 - gap / 2`. Instances and tapes are those of
    `GaussianBanditEnv`.

    ## Action Space
    `Discrete(K)`: the arm to pull.

    ## Observation Space
    `Box(float32)`, by `observation`:

    | kind | features | range |
    | --- | --- | --- |
    | `rl2` (default) | one-hot last action [K] | 0, 1 |
    | | last reward | 0, 1 |
    | | t / T | 0 to 1 |
    | `summary` | share of pulls N_a / T [K] | 0 to 1 |
    | | empirical means [K], 0 if untried | 0 to 1 |
    | | t / T | 0 to 1 |

    ## Rewards
    0 or 1. `info` holds what the agent must not see: `expected_reward`, `best_expected_reward`,
    `regret` (their difference, the pseudo-regret of the step), `t`, `instance_seed`,
    `instance_index`. After a reset, when nothing was pulled, the first three are 0.

    ## Starting State
    Zeros. `reset(seed=s)` begins instance (s, 0), `reset(seed=s, options={"index": i})` instance
    (s, i), and each later `reset()` the next index.

    ## Episode End
    Terminates after T pulls: the horizon belongs to the task. Never truncates.

    ## Arguments
    `preset` (default `paper-bernoulli`) names a task of `BANDIT_PRESETS`; `K`, `T`, `gap`, `tape`
    and `observation` override it.

    ```python
    gymnasium.make("palaestra/BernoulliBandit-v0", preset="krishnamurthy-hard", T=200)
    ```

    ## Vector Version
    `BernoulliBanditVectorEnv`: row n seeded s plays what this environment seeded s plays.

    ## Version History
    * v0: first version.
    """

    Config = BernoulliFamily
