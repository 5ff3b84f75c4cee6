"""Options that several algorithms of Stable-Baselines3 share; names and defaults are its own."""

from typing import Any, Literal

from pydantic import Field, field_validator

from palaestra.options import Options

Activation = Literal["tanh", "relu", "elu", "leaky_relu", "gelu", "silu"]
Schedule = Literal["constant", "linear"]
Layers = tuple[int, ...]


class FeaturesOptions(Options):
    """An encoder and backbone of Palaestra in the place of the algorithm's features extractor."""

    name: str = Field(description="policy whose encoder and backbone are used")
    options: dict[str, Any] = Field({}, description="its options")


class AlgorithmOptions(Options):
    """What every algorithm takes."""

    learning_rate_schedule: Schedule = Field(
        "constant", description="linear falls to zero at the end of the run"
    )
    gamma: float = Field(0.99, ge=0, le=1, description="discount of one environment step")
    features: FeaturesOptions | None = Field(
        None, description="name and options of a policy whose layers read the observation"
    )
    normalize_images: bool = Field(True, description="divide images by 255")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where it learns")


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
    clip_range_schedule: Schedule = Field(
        "constant", description="linear falls to zero at the end of the run"
    )
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
