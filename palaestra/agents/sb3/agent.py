"""What the agents of Stable-Baselines3 share: checks, construction, actor and loop.

Stable-Baselines3 and torch are imported where they are used, so that options can be listed without.
"""

import importlib
from typing import Any, ClassVar

from palaestra.agents.base import Actor, Agent
from palaestra.agents.loop import Loop, TrainingEnvs
from palaestra.agents.schedules import Scheduled, make_schedule
from palaestra.agents.setup import Setup
from palaestra.errors import UserError

_POLICY_OPTIONS = (
    "net_arch",
    "activation_fn",
    "ortho_init",
    "log_std_init",
    "share_features_extractor",
    "normalize_images",
    "n_quantiles",
    "lstm_hidden_size",
    "n_lstm_layers",
    "shared_lstm",
    "enable_critic_lstm",
)
"""Options that Stable-Baselines3 takes as `policy_kwargs`."""

_OWN_OPTIONS = ("policy_class", "features", "learning_rate_schedule", "clip_range_schedule")
"""Options that are not passed on as they are."""

_ACTIVATIONS = {
    "tanh": "Tanh",
    "relu": "ReLU",
    "elu": "ELU",
    "leaky_relu": "LeakyReLU",
    "gelu": "GELU",
    "silu": "SiLU",
}

_INSTALL = {
    "stable_baselines3": "pip install stable-baselines3",
    "sb3_contrib": "pip install 'palaestra[peers]'",
}


class SB3Agent(Agent):
    """An algorithm of Stable-Baselines3 or sb3-contrib, which trains in a loop of its own.

    A subclass names the algorithm; its `Config` has the algorithm's own options.

    Raises:
      UserError: a missing package, spaces or options that the algorithm does not take.
    """

    name: ClassVar[str]
    algorithm: ClassVar[str]
    """"module:Class" of the algorithm."""
    policy_suffix: ClassVar[str] = "Policy"
    acting: ClassVar[str] = ""
    """Attribute of the algorithm's policy that chooses actions; the policy itself if empty."""
    discrete_only: ClassVar[bool] = False

    def __init__(self, config: Any, setup: Setup) -> None:
        super().__init__(config, setup)
        self.algorithm_class = _load(self.name, self.algorithm)
        from palaestra.agents.sb3.spaces import check_spaces

        check_spaces(self.name, setup.observation_space, setup.action_space, self.discrete_only)
        if not setup.seed < 2**32:  # as NumPy's global generator takes it
            raise UserError(
                f"seed: {setup.seed} is not accepted by {self.name}: less than 2**32 is."
            )
        self.check_options()

    def check_options(self) -> None:
        """Refuse options that do not fit together or to the spaces."""
        if self.config.features is not None and not self.config.normalize_images:
            raise UserError(
                "agent.normalize_images: false is not accepted with agent.features, whose encoders "
                "scale images themselves."
            )
        _ = self.policy_name, self.policy_options

    def check_envs(self, envs: TrainingEnvs) -> None:
        """Refuse options that do not fit to the number of environments."""

    @property
    def policy_name(self) -> str:
        """Name of the policy class, which the observation space decides unless it was given.

        Raises:
          UserError: a policy that cannot read the observations.
        """
        from palaestra.agents.sb3.spaces import network_kind

        given = self.config.policy_class.removesuffix(self.policy_suffix)
        kind = network_kind(
            self.setup.observation_space,
            "" if given == "auto" else given,
            any_image=not self.config.normalize_images,
            convolution=self.config.features is None,
        )
        return kind + self.policy_suffix

    @property
    def policy_options(self) -> dict[str, Any]:
        """The algorithm's `policy_kwargs`."""
        options = {
            name: getattr(self.config, name)
            for name in _POLICY_OPTIONS
            if name in type(self.config).model_fields
        }
        options["net_arch"] = _lists(options["net_arch"])
        options["activation_fn"] = _activation(options["activation_fn"])
        if self.config.features is not None:
            from palaestra.agents.sb3.features import extractor_kwargs

            features = self.config.features
            options |= extractor_kwargs(features.name, dict(features.options))
        return options

    @property
    def algorithm_options(self) -> dict[str, Any]:
        """The algorithm's own keyword arguments."""
        options = {
            name: getattr(self.config, name)
            for name in type(self.config).model_fields
            if name not in (*_POLICY_OPTIONS, *_OWN_OPTIONS)
        }
        options["device"] = self.device
        for name in ("learning_rate", "clip_range"):
            given = getattr(self.config, f"{name}_schedule", None)
            if given is not None:
                schedule = make_schedule(given, self.setup.total_steps)
                options[name] = Scheduled(options[name], schedule)
        return options

    @property
    def device(self) -> str:
        """Where it learns, as torch names it."""
        return self.setup.device if self.config.device == "auto" else self.config.device

    def make_algorithm(self, envs: Any) -> Any:
        """Return the algorithm on a `VecEnv`, seeded with the run's seed."""
        return self.algorithm_class(
            self.policy_name,
            envs,
            policy_kwargs=self.policy_options,
            seed=self.setup.seed,
            **self.algorithm_options,
        )

    def make_actor(self, worker: int = 0, workers: int = 1) -> Actor:
        """Return an actor on the CPU with the weights that the algorithm starts from."""
        import torch

        from palaestra.agents.sb3.actor import PolicyActor, RecurrentActor, ValueActor
        from palaestra.agents.sb3.generators import GlobalGenerators
        from palaestra.agents.sb3.spaces import network_space

        with GlobalGenerators(self.setup.seed, torch.device("cpu")):
            policy = self.algorithm_class.policy_aliases[self.policy_name](
                network_space(self.setup.observation_space),
                self.setup.action_space,
                lambda progress_remaining: 0.0,  # never learns
                **self.policy_options,
            )
        del policy.optimizer
        if self.acting:
            return ValueActor(getattr(policy, self.acting), self.config.exploration_final_eps)
        return RecurrentActor(policy) if hasattr(policy, "lstm_actor") else PolicyActor(policy)

    def make_loop(self, envs: TrainingEnvs) -> Loop:
        """Return the algorithm's training loop.

        Raises:
          UserError: environments or a length of the run that the algorithm cannot take.
        """
        import torch
        from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

        from palaestra.agents.sb3.environments import make_envs
        from palaestra.agents.sb3.generators import GlobalGenerators
        from palaestra.agents.sb3.loop import OffPolicyLoop, OnPolicyLoop

        setup = self.setup
        if not setup.total_steps:
            raise UserError(f"total_steps: {self.name} needs the length of the run, 1 or more.")
        self.check_envs(envs)
        generators = GlobalGenerators(setup.seed, torch.device(self.device))
        with generators:
            vector = make_envs(envs, setup.seed, self.config.gamma)
            algorithm = self.make_algorithm(vector)
        off_policy = issubclass(self.algorithm_class, OffPolicyAlgorithm)
        make = OffPolicyLoop if off_policy else OnPolicyLoop
        return make(
            algorithm, vector, generators, setup.seed, setup.total_steps, envs.steps, self.acting
        )


def check_minibatches(config: Any, envs: TrainingEnvs) -> None:
    """Refuse updates of a single step, whose advantage has no variance.

    Raises:
      UserError: the options allow such an update.
    """
    if not config.normalize_advantage:
        return
    for name, size in (
        ("batch_size", config.batch_size),
        ("n_steps", config.n_steps * envs.num_envs),
    ):
        if size < 2:
            raise UserError(
                f"agent.{name}: {getattr(config, name)} is not accepted with normalize_advantage: "
                "two or more steps are needed in a minibatch and in an update."
            )


def check_train_freq(config: Any, envs: TrainingEnvs) -> None:
    """Refuse updates by episode of several environments.

    Raises:
      UserError: that is what the options ask for.
    """
    by_episode = isinstance(config.train_freq, tuple) and config.train_freq[1] == "episode"
    if by_episode and envs.num_envs > 1:
        raise UserError(
            f"agent.train_freq: {list(config.train_freq)} is not accepted with "
            f"{envs.num_envs} environments: env.num_envs 1, or a number of steps."
        )


def _load(name: str, path: str) -> Any:
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise UserError(f"agent {name!r} needs {module} ({error}): {_INSTALL[module]}") from None


def _activation(name: str) -> Any:
    from torch import nn

    return getattr(nn, _ACTIVATIONS[name])


def _lists(net_arch: Any) -> Any:
    """Return layer widths as Stable-Baselines3 takes them: lists instead of tuples."""
    if isinstance(net_arch, dict):
        return {part: list(widths) for part, widths in net_arch.items()}
    return None if net_arch is None else list(net_arch)
