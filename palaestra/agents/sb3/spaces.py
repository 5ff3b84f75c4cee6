"""Which spaces Stable-Baselines3 takes, and which kind of network reads them."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import VecTransposeImage

from palaestra.errors import UserError

_SMALLEST_IMAGE = 36
"""Pixels a side below which its convolutional network has no output."""


def check_spaces(
    name: str,
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    discrete_only: bool,
) -> None:
    """Refuse spaces that the algorithms do not take.

    Raises:
      UserError: names the agent, the space and what is accepted.
    """
    parts = [observation_space]
    if isinstance(observation_space, spaces.Dict):
        parts = list(observation_space.values())
    if not all(_is_readable(part) for part in parts):
        raise UserError(
            f"{name}: observation space {observation_space}: accepted are Box, Discrete from 0, "
            "MultiDiscrete and MultiBinary with one axis, and a Dict of these."
        )
    if discrete_only and not _is_discrete(action_space):
        raise UserError(
            f"{name}: action space {action_space}: a Discrete space from 0 is accepted."
        )
    if not _is_action(action_space):
        raise UserError(
            f"{name}: action space {action_space}: accepted are Discrete from 0, MultiDiscrete and "
            "MultiBinary with one axis, and a bounded Box."
        )


def network_kind(
    space: gymnasium.Space[Any], given: str, *, any_image: bool, convolution: bool
) -> str:
    """Return "Mlp", "Cnn" or "MultiInput".

    Args:
      space: the observation space.
      given: the kind that was asked for; empty chooses one.
      any_image: take every three-dimensional Box for an image, whatever its type and range.
      convolution: whether "Cnn" means the library's own convolutional network.

    Raises:
      UserError: the kind that was asked for cannot read the space.
    """
    is_dict = isinstance(space, spaces.Dict)
    is_image = is_image_space(space, normalized_image=any_image) and (
        not convolution or min(sorted(space.shape or ())[1:]) >= _SMALLEST_IMAGE
    )
    if not given:
        # The same rule for any image: only bytes are taken for pixels unasked.
        return "MultiInput" if is_dict else "Cnn" if is_image and is_image_space(space) else "Mlp"
    if (given == "MultiInput") != is_dict or (given == "Cnn" and convolution and not is_image):
        raise UserError(
            f"agent.policy_class: {given!r} cannot read the observation space {space}; "
            f"{'MultiInput' if is_dict else 'Cnn or Mlp' if is_image else 'Mlp'} can, "
            "and auto chooses."
        )
    return given


def network_space(space: gymnasium.Space[Any]) -> gymnasium.Space[Any]:
    """Return the space of what the network sees: images with their channels first."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: network_space(part) for key, part in space.items()})
    if not isinstance(space, spaces.Box) or not is_image_space(space):
        return space
    return (
        space if is_image_space_channels_first(space) else VecTransposeImage.transpose_space(space)
    )


def _is_readable(space: gymnasium.Space[Any]) -> bool:
    if isinstance(space, spaces.MultiDiscrete):
        return space.nvec.ndim == 1 and not np.any(space.start)
    return isinstance(space, spaces.Box | spaces.MultiBinary) or _is_discrete(space)


def _is_discrete(space: gymnasium.Space[Any]) -> bool:
    return isinstance(space, spaces.Discrete) and space.start == 0


def _is_action(space: gymnasium.Space[Any]) -> bool:
    if isinstance(space, spaces.Box):
        return bool(np.isfinite([space.low, space.high]).all())
    if isinstance(space, spaces.MultiDiscrete):
        return space.nvec.ndim == 1 and not np.any(space.start)
    if isinstance(space, spaces.MultiBinary):
        return len(space.shape) == 1
    return _is_discrete(space)
