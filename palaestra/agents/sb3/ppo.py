"""Proximal policy optimisation of Stable-Baselines3 (arXiv 1707.06347)."""

from typing import ClassVar, Literal

from pydantic import Field

from palaestra.agents.loop import TrainingEnvs
from palaestra.agents.sb3.agent import SB3Agent, check_minibatches
from palaestra.agents.sb3.options import ClippedOptions
from palaestra.options import Options


class PPOConfig(ClippedOptions):
    """Options of `stable_baselines3.PPO`."""

    policy_class: Literal["auto", "MlpPolicy", "CnnPolicy", "MultiInputPolicy"] = Field(
        "auto", description="kind of network; auto follows from the observation space"
    )
    n_steps: int = Field(2048, ge=1, description="steps of every environment in one update")
    batch_size: int = Field(64, ge=1, description="steps in a minibatch")


class PPO(SB3Agent):
    """`stable_baselines3.PPO`."""

    Config: ClassVar[type[Options]] = PPOConfig
    name: ClassVar[str] = "sb3/ppo"
    algorithm: ClassVar[str] = "stable_baselines3:PPO"

    def check_task(self, task: TrainingEnvs) -> None:
        """Refuse updates whose advantages cannot be normalised."""
        check_minibatches(self.config, task)
