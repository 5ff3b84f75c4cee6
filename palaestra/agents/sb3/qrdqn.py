"""Quantile-regression deep Q-learning of sb3-contrib (arXiv 1710.10044)."""

from typing import ClassVar

from pydantic import Field

from palaestra.agents.loop import TrainingEnvs
from palaestra.agents.sb3.agent import SB3Agent, check_train_freq
from palaestra.agents.sb3.options import ReplayOptions
from palaestra.options import Options


class QRDQNConfig(ReplayOptions):
    """Options of `sb3_contrib.QRDQN`."""

    learning_rate: float = Field(5e-5, gt=0, description="Adam's step size")
    n_quantiles: int = Field(200, ge=1, description="quantiles of the return of each action")
    exploration_fraction: float = Field(
        0.005,
        ge=0,
        le=1,
        description="part of the run in which exploration falls to its final value",
    )
    exploration_final_eps: float = Field(
        0.01, ge=0, le=1, description="final probability of a random action, also in sample mode"
    )
    max_grad_norm: float | None = Field(
        None, gt=0, description="clip of the gradient's norm; null does not clip"
    )


class QRDQN(SB3Agent):
    """`sb3_contrib.QRDQN`."""

    Config: ClassVar[type[Options]] = QRDQNConfig
    name: ClassVar[str] = "sb3/qrdqn"
    algorithm: ClassVar[str] = "sb3_contrib:QRDQN"
    acting: ClassVar[str] = "quantile_net"
    discrete_only: ClassVar[bool] = True

    def check_task(self, task: TrainingEnvs) -> None:
        """Refuse updates by episode of several environments."""
        check_train_freq(self.config, task)
