"""Multi-armed bandits, N at a time: `GaussianBanditVectorEnv` and `BernoulliBanditVectorEnv`.

Row n seeded s plays exactly what the single environment seeded s plays.
"""

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
from palaestra.envs.bandits.horizon_vector import HorizonVectorEnv


class BanditVectorEnv(HorizonVectorEnv):
    """N bandits of one family; the noise of a step is made when it is needed."""

    Config: ClassVar[type[Family]]

    def __init__(self, num_envs: int, **options: Any) -> None:
        self.family = self.Config.from_options(options)
        f = self.family
        super().__init__(num_envs, f.K, f.T, f.observation, f.reward_range)

    def _begin(self) -> None:
        keys = noise.instance_keys(self._seeds, self._indices)  # type: ignore[arg-type]
        means = self.family.means(keys)
        self._best = means.max(axis=1)
        self._means = means.reshape(-1)
        self._step_keys = noise.bits(keys, REWARDS)
        self._arm_keys = arm_keys(keys, self.K).reshape(-1)

    def _pull(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        cell = self._first_arm + actions
        expected = self._means[cell]
        if self.family.tape == "per_arm":
            bits = noise.bits(self._arm_keys[cell], self._pulls[cell].view(np.uint64))
        else:
            bits = noise.bits(self._step_keys, np.uint64(self._t))
        return self.family.rewards(expected, bits), expected, self._best.copy()


class GaussianBanditVectorEnv(BanditVectorEnv):
    """N Gaussian bandits; see `GaussianBanditEnv` for the task and its arguments."""

    Config = GaussianFamily


class BernoulliBanditVectorEnv(BanditVectorEnv):
    """N Bernoulli bandits; see `BernoulliBanditEnv` for the task and its arguments."""

    Config = BernoulliFamily
