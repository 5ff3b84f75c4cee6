"""Palaestra's encoders and backbones as features extractors of Stable-Baselines3.

    env = HistoryObservation(env, length=16)  # only for policies with memory
    kwargs = dict(extractor_kwargs("gru", {"hidden_size": 32}), net_arch=[])
    PPO("MultiInputPolicy", env, policy_kwargs=kwargs).learn(100_000)

Stable-Baselines3 keeps the heads; https://stable-baselines3.readthedocs.io, "Custom Policy
Network", describes how it uses an extractor.
"""

from functools import partial
from typing import Any, Self

import gymnasium
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
)
from torch import Tensor

from palaestra.envs.wrappers.history import FIRST, HISTORY, step_space
from palaestra.errors import UserError
from palaestra.options import Options, validate
from palaestra.policies.sequence import SequencePolicy
from palaestra.registry import registry


class PolicyFeatures(BaseFeaturesExtractor):
    """The torso of a registered policy: its encoder and its backbone.

    A history observation (`HistoryObservation`) is read from the empty state and gives the
    backbone's output at its last step; what precedes the episode's begin has no influence. Any
    other observation is read alone, which needs a policy without memory. Parameters have the names
    that they have in the policy (`encoder.*`, `backbone.*`).

    Initial weights are the policy's own, drawn from torch's global generator, which the algorithm
    seeds: the orthogonal ones that Stable-Baselines3 gives to the layers of its actor-critic
    policies do not replace them.

    Args:
      observation_space: of the algorithm, after the wrappers of Stable-Baselines3. Its images are
        expected divided by 255, as they come unless `normalize_images=False`.
      name: of a registered policy.
      options: of that policy, but `separate_critic`.

    Raises:
      UserError: unknown name or option, a policy without encoder and backbone, a space without
        encoder, or a policy with memory and no history.
    """

    def __init__(
        self, observation_space: gymnasium.Space[Any], name: str = "mlp", **options: Any
    ) -> None:
        cls, config = _checked(name, options)
        step = step_space(observation_space)
        torso = cls.make_torso(step or _as_given(observation_space), config)
        super().__init__(observation_space, torso.out_features)
        # In a tuple, which torch does not search: parameters have their names from the parts.
        self._torso = (torso,)
        self.encoder, self.backbone = torso.encoder, torso.backbone
        self._reads_history = step is not None
        if torso.has_memory and not self._reads_history:
            raise UserError(
                f"observation_space: policy {name!r} has memory and cannot read single "
                f"observations, {observation_space}; wrap each environment: "
                "palaestra.envs.wrappers.history.HistoryObservation(env, length)."
            )

    def forward(self, observations: Any) -> Tensor:
        """Preprocessed observations `[B, ...]` -> `[B, features_dim]`."""
        (torso,) = self._torso
        if self._reads_history:
            reset = observations[FIRST] > 0
            y, _ = torso(observations[HISTORY], torso.initial_state(len(reset)), reset)
            result: Tensor = y[:, -1]
            return result
        x = torso.encode(_pixels(observations, self._observation_space))
        reset = torch.ones(len(x), dtype=torch.bool, device=x.device)
        return torso.backbone.step(x, torso.initial_state(len(x)), reset)[0]

    def apply(self, fn: Any) -> Self:
        """Apply `fn` to every module, unless it is Stable-Baselines3's initialiser."""
        if isinstance(fn, partial) and fn.func is BasePolicy.init_weights:
            return self
        return super().apply(fn)


def extractor_kwargs(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the `policy_kwargs` that give an algorithm the features of policy `name`.

    Raises:
      UserError: unknown name or option, or a policy without encoder and backbone.
    """
    _checked(name, options)
    return {
        "features_extractor_class": PolicyFeatures,
        "features_extractor_kwargs": {"name": name, **options},
    }


def _checked(name: str, options: dict[str, Any]) -> tuple[type[SequencePolicy], Options]:
    cls = registry.get("policy", name)
    if not (isinstance(cls, type) and issubclass(cls, SequencePolicy)):
        raise UserError(
            f"features.name: policy {name!r} offers no encoder and backbone; accepted: subclasses "
            "of palaestra.policies.SequencePolicy, which define `make_backbone`."
        )
    if "separate_critic" in options:
        raise UserError(
            "features.separate_critic: the heads are Stable-Baselines3's; its on-policy algorithms "
            "accept policy_kwargs={'share_features_extractor': False}."
        )
    return cls, validate(cls.Config, {**options, "separate_critic": False}, "features")


def _as_given(space: gymnasium.Space[Any]) -> gymnasium.Space[Any]:
    """Return the space of what Stable-Baselines3 makes of observations: integers are one-hot."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict([(key, _as_given(part)) for key, part in space.items()])
    if isinstance(space, spaces.Discrete):
        return spaces.Box(0, 1, (int(space.n),))
    if isinstance(space, spaces.MultiDiscrete):
        return spaces.Box(0, 1, (int(space.nvec.sum()),))
    return space


def _pixels(observations: Any, space: gymnasium.Space[Any]) -> Any:
    """Return the observations with images as bytes again, which is what the encoder divides."""
    if isinstance(space, spaces.Dict):
        return {key: _pixels(observations[key], part) for key, part in space.items()}
    if is_image_space(space):
        return (observations * 255).round()
    return observations


class IntegerFlatten(FlattenExtractor):
    """`FlattenExtractor` for observations that are no Dict, whose width is a plain integer.

    For MultiDiscrete observations the library's own width is a NumPy integer, which torch's LSTM
    does not take as its input size. There are no parameters here, so nothing else changes.
    """

    def __init__(self, observation_space: gymnasium.Space[Any]) -> None:
        super().__init__(observation_space)
        self._features_dim = int(self._features_dim)


class IntegerCombined(CombinedExtractor):
    """`CombinedExtractor` for Dict observations, whose width is a plain integer."""

    def __init__(self, observation_space: Any, **options: Any) -> None:
        super().__init__(observation_space, **options)
        self._features_dim = int(self._features_dim)
