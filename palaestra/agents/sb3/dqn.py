"""Deep Q-learning of Stable-Baselines3 (arXiv 1312.5602, Nature 518, 529-533)."""

from typing import ClassVar

from pydantic import Field

from palaestra.agents.loop import TrainingEnvs
from palaestra.agents.sb3.agent import SB3Agent, check_train_freq
from palaestra.agents.sb3.options import ReplayOptions
from palaestra.options import Options


class DQNConfig(ReplayOptions):
    """Options of `stable_baselines3.DQN`."""

    learning_rate: float = Field(1e-4, gt=0, description="Adam's step size")
    exploration_fraction: float = Field(
        0.1, ge=0, le=1, description="part of the run in which exploration falls to its final value"
    )
    exploration_final_eps: float = Field(
        0.05, ge=0, le=1, description="final probability of a random action, also in sample mode"
    )
    max_grad_norm: float = Field(10.0, gt=0, description="clip of the gradient's norm")


class DQN(SB3Agent):
    """`stable_baselines3.DQN`."""

    Config: ClassVar[type[Options]] = DQNConfig
    name: ClassVar[str] = "sb3/dqn"
    algorithm: ClassVar[str] = "stable_baselines3:DQN"
    acting: ClassVar[str] = "q_net"
    discrete_only: ClassVar[bool] = True

    def check_task(self, task: TrainingEnvs) -> None:
        """Refuse updates by episode of several environments."""
        check_train_freq(self.config, task)
