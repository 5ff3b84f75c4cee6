"""Advantage actor-critic of Stable-Baselines3 (arXiv 1602.01783), synchronous."""

from typing import ClassVar, Literal

from pydantic import Field

from palaestra.agents.sb3.agent import SB3Agent
from palaestra.agents.sb3.options import ActorCriticOptions
from palaestra.options import Options


class A2CConfig(ActorCriticOptions):
    """Options of `stable_baselines3.A2C`."""

    policy_class: Literal["auto", "MlpPolicy", "CnnPolicy", "MultiInputPolicy"] = Field(
        "auto", description="kind of network; auto follows from the observation space"
    )
    learning_rate: float = Field(7e-4, gt=0, description="the optimiser's step size")
    n_steps: int = Field(5, ge=1, description="steps of every environment in one update")
    gae_lambda: float = Field(1.0, ge=0, le=1, description="bias-variance trade-off of GAE")
    normalize_advantage: bool = Field(
        False, description="zero mean and unit variance within each update"
    )
    use_rms_prop: bool = Field(True, description="RMSprop instead of Adam")
    rms_prop_eps: float = Field(1e-5, gt=0, description="RMSprop's epsilon")


class A2C(SB3Agent):
    """`stable_baselines3.A2C`."""

    Config: ClassVar[type[Options]] = A2CConfig
    name: ClassVar[str] = "sb3/a2c"
    algorithm: ClassVar[str] = "stable_baselines3:A2C"
