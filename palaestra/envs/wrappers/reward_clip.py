"""Rewards between two bounds."""

from typing import Any, ClassVar, Self

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from pydantic import Field, model_validator

from palaestra.options import Options, validate


class RewardClipOptions(Options):
    """Options of `reward-clip`."""

    low: float = Field(-1.0, allow_inf_nan=False, description="smallest reward")
    high: float = Field(1.0, allow_inf_nan=False, description="largest reward")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low >= self.high:
            raise ValueError("low has to be below high")
        return self


class VectorRewardClip(VectorWrapper):
    """Clip rewards; `infos["raw_reward"]`, float64 `[N]`, tells the environment's own.

    Args:
      env: the vector environment.
      options: fields of `RewardClipOptions`.

    Raises:
      UserError: an option that is not accepted.
    """

    Config: ClassVar[type[Options]] = RewardClipOptions
    stateless = True

    def __init__(self, env: VectorEnv[Any, Any, Any], **options: Any) -> None:
        super().__init__(env)
        self.options: Any = validate(self.Config, options)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step the environments and clip their rewards."""
        observation, reward, terminated, truncated, infos = self.env.step(actions)
        infos.setdefault("raw_reward", np.array(reward, np.float64))
        clipped = np.clip(reward, self.options.low, self.options.high)
        return observation, clipped, terminated, truncated, infos
