"""Proximal policy optimisation with an LSTM, of sb3-contrib (arXiv 1707.06347)."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from palaestra.agents.loop import TrainingEnvs
from palaestra.agents.sb3.agent import SB3Agent, check_minibatches
from palaestra.agents.sb3.options import ClippedOptions
from palaestra.errors import UserError
from palaestra.options import Options


class RecurrentPPOConfig(ClippedOptions):
    """Options of `sb3_contrib.RecurrentPPO`."""

    policy_class: Literal["auto", "MlpLstmPolicy", "CnnLstmPolicy", "MultiInputLstmPolicy"] = Field(
        "auto", description="kind of network; auto follows from the observation space"
    )
    n_steps: int = Field(128, ge=1, description="steps of every environment in one update")
    batch_size: int = Field(128, ge=1, description="steps in a minibatch")
    lstm_hidden_size: int = Field(256, ge=1, description="width of the LSTM")
    n_lstm_layers: int = Field(1, ge=1, description="layers of the LSTM")
    shared_lstm: bool = Field(
        False, description="the value reads the policy's LSTM, without a gradient into it"
    )
    enable_critic_lstm: bool = Field(True, description="the value has an LSTM of its own")


class RecurrentPPO(SB3Agent):
    """`sb3_contrib.RecurrentPPO`."""

    Config: ClassVar[type[Options]] = RecurrentPPOConfig
    name: ClassVar[str] = "sb3/recurrent-ppo"
    algorithm: ClassVar[str] = "sb3_contrib:RecurrentPPO"
    policy_suffix: ClassVar[str] = "LstmPolicy"

    def check_options(self) -> None:
        """Refuse combinations of memories that sb3-contrib does not build."""
        super().check_options()
        if self.config.shared_lstm and self.config.enable_critic_lstm:
            raise UserError(
                "agent.enable_critic_lstm: true is not accepted beside shared_lstm: true; "
                "the value reads the shared LSTM or has its own."
            )
        if self.config.shared_lstm and not self.config.share_features_extractor:
            raise UserError(
                "agent.share_features_extractor: false is not accepted beside shared_lstm: true."
            )

    @property
    def policy_options(self) -> dict[str, Any]:
        """The algorithm's `policy_kwargs`, with features that an LSTM can read."""
        options = super().policy_options
        kind = self.policy_name.removesuffix(self.policy_suffix)
        if kind != "Cnn" and self.config.features is None:
            from palaestra.agents.sb3.integer_features import IntegerCombined, IntegerFlatten

            options["features_extractor_class"] = (
                IntegerFlatten if kind == "Mlp" else IntegerCombined
            )
        return options

    def check_task(self, task: TrainingEnvs) -> None:
        """Refuse updates whose advantages cannot be normalised."""
        check_minibatches(self.config, task)
