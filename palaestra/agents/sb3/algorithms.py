"""The algorithms of Stable-Baselines3 and sb3-contrib that are agents here, with their options.

Names and defaults of options are the libraries' own.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from palaestra.agents.loop import TrainingEnvs
from palaestra.agents.sb3.agent import SB3Agent, check_minibatches, check_train_freq
from palaestra.agents.schedules import ScheduleOptions, schedule_field
from palaestra.errors import UserError
from palaestra.options import Options

Activation = Literal["tanh", "relu", "elu", "leaky_relu", "gelu", "silu"]
Layers = tuple[int, ...]


class FeaturesOptions(Options):
    """An encoder and backbone of Palaestra in the place of the algorithm's features extractor."""

    name: str = Field(description="policy whose encoder and backbone are used")
    options: dict[str, Any] = Field({}, description="its options")


class AlgorithmOptions(Options):
    """What every algorithm takes."""

    learning_rate_schedule: ScheduleOptions = schedule_field("the learning rate")
    gamma: float = Field(0.99, ge=0, le=1, description="discount of one environment step")
    features: FeaturesOptions | None = Field(
        None, description="name and options of a policy whose layers read the observation"
    )
    normalize_images: bool = Field(True, description="divide images by 255")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where it learns; auto is the device of the run"
    )


class ActorCriticOptions(AlgorithmOptions):
    """What the algorithms with a policy and a value take."""

    net_arch: Layers | dict[Literal["pi", "vf"], Layers] | None = Field(
        None,
        description="layer widths after the features, for both or as pi and vf; null: 64 and 64, "
        "none after a convolution",
    )
    activation_fn: Activation = Field("tanh", description="activation between these layers")
    ortho_init: bool = Field(True, description="orthogonal initial weights")
    log_std_init: float = Field(0.0, description="initial log standard deviation of Box actions")
    share_features_extractor: bool = Field(
        True, description="one features extractor for policy and value"
    )
    ent_coef: float = Field(0.0, description="weight of the entropy bonus")
    vf_coef: float = Field(0.5, description="weight of the value loss")
    max_grad_norm: float = Field(0.5, gt=0, description="clip of the gradient's norm")


class ClippedOptions(ActorCriticOptions):
    """What PPO takes, with and without memory."""

    learning_rate: float = Field(3e-4, gt=0, description="Adam's step size")
    n_epochs: int = Field(10, ge=1, description="passes over the data of one update")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="bias-variance trade-off of GAE")
    clip_range: float = Field(0.2, gt=0, description="clip of the probability ratio")
    clip_range_schedule: ScheduleOptions = schedule_field("the clip of the probability ratio")
    clip_range_vf: float | None = Field(
        None, gt=0, description="clip of the value's change; null does not clip"
    )
    normalize_advantage: bool = Field(
        True, description="zero mean and unit variance within each minibatch"
    )
    target_kl: float | None = Field(
        None, gt=0, description="end an update early above 1.5 times this divergence, in nats"
    )


class ReplayOptions(AlgorithmOptions):
    """What the algorithms that learn from a replay buffer take."""

    policy_class: Literal["auto", "MlpPolicy", "CnnPolicy", "MultiInputPolicy"] = Field(
        "auto", description="kind of network; auto follows from the observation space"
    )
    net_arch: Layers | None = Field(
        None,
        description="layer widths after the features; null: 64 and 64, none after a convolution",
    )
    activation_fn: Activation = Field("relu", description="activation between these layers")
    buffer_size: int = Field(1_000_000, ge=1, description="transitions kept for learning")
    learning_starts: int = Field(
        100, ge=0, description="steps of random play before the first update"
    )
    batch_size: int = Field(32, ge=1, description="transitions in a minibatch")
    tau: float = Field(1.0, ge=0, le=1, description="how far the target network moves; 1 copies")
    train_freq: int | tuple[int, Literal["step", "episode"]] = Field(
        4,
        description="steps of every environment between two updates, or [number, step | episode]",
    )
    gradient_steps: int = Field(
        1, ge=-1, description="minibatches of an update; -1: as many as steps were taken"
    )
    n_steps: int = Field(1, ge=1, description="rewards summed before the target's value")
    target_update_interval: int = Field(
        10_000, ge=1, description="steps between two updates of the target network"
    )
    exploration_initial_eps: float = Field(
        1.0, ge=0, le=1, description="probability of a random action at the beginning"
    )

    @field_validator("train_freq")
    @classmethod
    def _is_positive(cls, value: int | tuple[int, str]) -> int | tuple[int, str]:
        if (value[0] if isinstance(value, tuple) else value) < 1:
            raise ValueError("a number from 1 is expected")
        return value


class PPOConfig(ClippedOptions):
    """Options of `stable_baselines3.PPO`."""

    policy_class: Literal["auto", "MlpPolicy", "CnnPolicy", "MultiInputPolicy"] = Field(
        "auto", description="kind of network; auto follows from the observation space"
    )
    n_steps: int = Field(2048, ge=1, description="steps of every environment in one update")
    batch_size: int = Field(64, ge=1, description="steps in a minibatch")


class PPO(SB3Agent):
    """Proximal policy optimisation (arXiv 1707.06347): `stable_baselines3.PPO`."""

    Config: ClassVar[type[Options]] = PPOConfig
    name: ClassVar[str] = "sb3/ppo"
    algorithm: ClassVar[str] = "stable_baselines3:PPO"

    def check_envs(self, envs: TrainingEnvs) -> None:
        """Refuse updates whose advantages cannot be normalised."""
        check_minibatches(self.config, envs)


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
    """Synchronous advantage actor-critic (arXiv 1602.01783): `stable_baselines3.A2C`."""

    Config: ClassVar[type[Options]] = A2CConfig
    name: ClassVar[str] = "sb3/a2c"
    algorithm: ClassVar[str] = "stable_baselines3:A2C"


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
    """Deep Q-learning (arXiv 1312.5602, Nature 518, 529-533): `stable_baselines3.DQN`."""

    Config: ClassVar[type[Options]] = DQNConfig
    name: ClassVar[str] = "sb3/dqn"
    algorithm: ClassVar[str] = "stable_baselines3:DQN"
    acting: ClassVar[str] = "q_net"
    discrete_only: ClassVar[bool] = True

    def check_envs(self, envs: TrainingEnvs) -> None:
        """Refuse updates by episode of several environments."""
        check_train_freq(self.config, envs)


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
    """Quantile-regression deep Q-learning (arXiv 1710.10044): `sb3_contrib.QRDQN`."""

    Config: ClassVar[type[Options]] = QRDQNConfig
    name: ClassVar[str] = "sb3/qrdqn"
    algorithm: ClassVar[str] = "sb3_contrib:QRDQN"
    acting: ClassVar[str] = "quantile_net"
    discrete_only: ClassVar[bool] = True

    def check_envs(self, envs: TrainingEnvs) -> None:
        """Refuse updates by episode of several environments."""
        check_train_freq(self.config, envs)


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
    """PPO with an LSTM: `sb3_contrib.RecurrentPPO`."""

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
            from palaestra.agents.sb3.features import IntegerCombined, IntegerFlatten

            options["features_extractor_class"] = (
                IntegerFlatten if kind == "Mlp" else IntegerCombined
            )
        return options

    def check_envs(self, envs: TrainingEnvs) -> None:
        """Refuse updates whose advantages cannot be normalised."""
        check_minibatches(self.config, envs)
