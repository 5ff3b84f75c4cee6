"""Families of bandits: how the means of an instance are drawn and what a pull pays."""

from abc import abstractmethod
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field

from palaestra.envs import noise
from palaestra.envs.bandits.presets import BANDIT_PRESETS
from palaestra.errors import UserError, did_you_mean
from palaestra.options import Options, validate

MEANS, REWARDS = np.uint64(0), np.uint64(1)
"""Which stream of an instance: its means, or the noise of its rewards."""


class Family(Options):
    """The distribution over instances of one kind of bandit, and the options of its environment."""

    name: ClassVar[str]
    default_preset: ClassVar[str]

    preset: str = Field(description="Named task whose options are the defaults of the others.")
    K: int = Field(ge=2, description="Number of arms.")
    T: int = Field(ge=1, description="Horizon: pulls per episode.")
    tape: Literal["per_arm", "per_step"] = Field(
        "per_arm",
        description="What numbers the reward noise: the pulls of the arm, or the steps.",
    )
    observation: Literal["rl2", "summary"] = Field(
        "rl2", description="Last action and reward, or counts and means of all arms."
    )

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> Self:
        """Return the family of a preset with explicit options laid over it.

        Raises:
          UserError: an unknown preset or option, or a value that is not accepted.
        """
        preset = options.get("preset") or cls.default_preset
        known = [name for name, task in BANDIT_PRESETS.items() if task["family"] == cls.name]
        if preset not in known:
            raise UserError(
                f"preset: unknown {cls.name} preset {preset!r}; {did_you_mean(str(preset), known)}"
            )
        task = {key: value for key, value in BANDIT_PRESETS[preset].items() if key != "family"}
        return validate(cls, {**task, **options, "preset": preset})

    @abstractmethod
    def means(self, keys: np.ndarray) -> np.ndarray:
        """Return the expected rewards of the instances with `keys [N]`, float64 `[N, K]`."""

    @abstractmethod
    def rewards(self, means: np.ndarray, bits: np.ndarray) -> np.ndarray:
        """Return what pulls of arms with `means` pay, given their random bits (same shapes)."""

    @property
    @abstractmethod
    def reward_range(self) -> tuple[float, float]:
        """Bounds that no reward exceeds."""


class GaussianFamily(Family):
    """r = mu_a + sigma * eps, means from a uniform or a normal prior."""

    name: ClassVar[str] = "gaussian"
    default_preset: ClassVar[str] = "paper-text-medium"

    mean_prior: Literal["uniform01", "normal"] = Field(description="Prior of the means.")
    prior_scale: float = Field(gt=0, description="The draw from the prior is multiplied by it.")
    sigma: float = Field(ge=0, description="Standard deviation of the rewards of an arm.")

    def means(self, keys: np.ndarray) -> np.ndarray:
        """Return the expected rewards of the instances with `keys [N]`, float64 `[N, K]`."""
        x = _mean_bits(keys, self.K)
        draw = noise.uniform if self.mean_prior == "uniform01" else noise.standard_normal
        return self.prior_scale * draw(x)

    def rewards(self, means: np.ndarray, bits: np.ndarray) -> np.ndarray:
        """Return what pulls of arms with `means` pay, given their random bits (same shapes)."""
        return means + self.sigma * noise.standard_normal(bits)

    @property
    def reward_range(self) -> tuple[float, float]:
        """Bounds that no reward exceeds."""
        tail = self.sigma * noise.NORMAL_BOUND
        if self.mean_prior == "uniform01":
            return -tail, self.prior_scale + tail
        largest = self.prior_scale * noise.NORMAL_BOUND + tail
        return -largest, largest


class BernoulliFamily(Family):
    """r = 1[u < p_a]: one arm at 0.5 + gap / 2 and the others at 0.5 - gap / 2."""

    name: ClassVar[str] = "bernoulli"
    default_preset: ClassVar[str] = "paper-bernoulli"

    gap: float = Field(ge=0, le=1, description="Probability of the best arm minus the others'.")

    def means(self, keys: np.ndarray) -> np.ndarray:
        """Return the expected rewards of the instances with `keys [N]`, float64 `[N, K]`."""
        best = noise.integer(noise.bits(noise.bits(keys, MEANS), np.uint64(0)), self.K)
        means = np.full((len(keys), self.K), 0.5 - self.gap / 2)
        means[np.arange(len(keys)), best] = 0.5 + self.gap / 2
        return means

    def rewards(self, means: np.ndarray, bits: np.ndarray) -> np.ndarray:
        """Return what pulls of arms with `means` pay, given their random bits (same shapes)."""
        return (noise.uniform(bits) < means).astype(np.float64)

    @property
    def reward_range(self) -> tuple[float, float]:
        """Bounds that no reward exceeds."""
        return 0.0, 1.0


def arm_keys(keys: np.ndarray, K: int) -> np.ndarray:
    """Return the key of the rewards of each arm of the instances with `keys [N]`, `[N, K]`."""
    return noise.bits(noise.bits(keys, REWARDS)[:, None], np.arange(K, dtype=np.uint64))


def _mean_bits(keys: np.ndarray, K: int) -> np.ndarray:
    return noise.bits(noise.bits(keys, MEANS)[:, None], np.arange(K, dtype=np.uint64))
