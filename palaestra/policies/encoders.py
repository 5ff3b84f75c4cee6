"""Encoders: from an observation space to a module that returns `[..., features]`.

Observations have leading dimensions `[B]` or `[B, T]`. Features come in any number type: the torso
casts them once to the type of its weights.
"""

import math
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

from palaestra.errors import UserError
from palaestra.policies.init import orthogonal

Observation = Tensor | dict[str, Any]
"""A tensor, or a dict of observations, with leading dimensions `[B]` or `[B, T]`."""

ACTION_MASK = "action_mask"
"""Key of a Dict observation that belongs to the action head; encoders never see it."""

MIN_PIXELS = 36
"""Side of the smallest image that the convolutions can read."""


class VectorEncoder(nn.Module):
    """Flattens an observation.

    Args:
      space: Box or MultiBinary of any shape.
    """

    def __init__(self, space: spaces.Box | spaces.MultiBinary) -> None:
        super().__init__()
        self.out_features = math.prod(space.shape)
        self._dims = len(space.shape)

    def forward(self, observation: Tensor) -> Tensor:
        """`[..., *shape]` -> `[..., out_features]`."""
        if self._dims == 1:
            return observation
        leading = observation.shape[: observation.ndim - self._dims]
        return observation.reshape(*leading, self.out_features)


class OneHotEncoder(nn.Module):
    """One-hot vectors of Discrete or MultiDiscrete observations, one part after the other."""

    def __init__(self, space: spaces.Discrete | spaces.MultiDiscrete) -> None:
        super().__init__()
        sizes = np.atleast_1d(space.n if isinstance(space, spaces.Discrete) else space.nvec.ravel())
        starts = np.broadcast_to(np.ravel(space.start), sizes.shape)
        values = [start + np.arange(size) for start, size in zip(starts, sizes, strict=True)]
        self.out_features = int(sizes.sum())
        self._dims = len(space.shape or ())
        self.slot: Tensor
        self.value: Tensor
        slot = torch.arange(len(sizes)).repeat_interleave(torch.from_numpy(sizes))
        self.register_buffer("slot", slot, persistent=False)
        self.register_buffer("value", torch.from_numpy(np.concatenate(values)), persistent=False)

    def forward(self, observation: Tensor) -> Tensor:
        """Integers `[..., *shape]` -> bool `[..., out_features]`."""
        if self._dims == 0:
            return observation.unsqueeze(-1) == self.value
        leading = observation.shape[: observation.ndim - self._dims]
        return observation.reshape(*leading, -1)[..., self.slot] == self.value


class NatureCNN(nn.Module):
    """The three convolutions of DQN (Mnih et al. 2015, doi 10.1038/nature14236) and a layer of 512.

    Args:
      space: uint8 Box `[H, W, C]` or `[C, H, W]`; the shortest side is taken for the channels.

    Raises:
      UserError: the image is smaller than 36 pixels.
    """

    out_features = 512

    def __init__(self, space: spaces.Box) -> None:
        super().__init__()
        self._channels_last = space.shape[2] < space.shape[0]
        channels, height, width = space.shape
        if self._channels_last:
            height, width, channels = space.shape
        if min(height, width) < MIN_PIXELS:
            raise UserError(
                f"observation_space: images of {height} x {width} pixels are too small for the "
                f"convolutions; accepted: at least {MIN_PIXELS} x {MIN_PIXELS}."
            )
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, 32, 8, stride=4),
            nn.ReLU(),
            nn.Conv2d(32, 64, 4, stride=2),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, stride=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        flat = 64 * _cnn_side(height) * _cnn_side(width)
        self.linear = nn.Linear(flat, self.out_features)
        for layer in (*self.convolutions, self.linear):
            if isinstance(layer, nn.Conv2d | nn.Linear):
                orthogonal(layer, math.sqrt(2))

    def forward(self, observation: Tensor) -> Tensor:
        """Pixels 0..255 `[..., H, W, C]` or `[..., C, H, W]` -> `[..., 512]`."""
        leading = observation.shape[:-3]
        image = observation.reshape(-1, *observation.shape[-3:])
        if self._channels_last:
            image = image.movedim(-1, -3)
        image = image.to(self.linear.weight.dtype) / 255
        result: Tensor = self.linear(self.convolutions(image)).relu().reshape(*leading, -1)
        return result


class DictEncoder(nn.Module):
    """Concatenates the encoded parts of a Dict observation, in the order of the space's keys."""

    def __init__(self, space: spaces.Dict) -> None:
        super().__init__()
        parts = {key: make_encoder(part) for key, part in space.items() if key != ACTION_MASK}
        if not parts:
            raise _refused(space)
        self.parts = nn.ModuleDict(parts)
        self.out_features: int = sum(part.out_features for part in parts.values())

    def forward(self, observation: dict[str, Any]) -> Tensor:
        """A dict of observations -> `[..., out_features]`."""
        parts = [encoder(observation[key]) for key, encoder in self.parts.items()]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


Encoder = VectorEncoder | OneHotEncoder | NatureCNN | DictEncoder
"""Every encoder has `out_features`."""


def make_encoder(space: Space[Any]) -> Encoder:
    """Return a new encoder of `space`.

    Raises:
      UserError: no encoder reads this space.
    """
    if isinstance(space, spaces.Dict):
        return DictEncoder(space)
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return OneHotEncoder(space)
    if isinstance(space, spaces.Box) and is_image(space):
        return NatureCNN(space)
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        return VectorEncoder(space)
    raise _refused(space)


def is_image(space: spaces.Box) -> bool:
    """Whether `space` holds images: bytes in three dimensions."""
    return space.dtype == np.uint8 and len(space.shape) == 3


def _refused(space: Space[Any]) -> UserError:
    return UserError(
        f"observation_space: {space} has no encoder; accepted: Box, Discrete, MultiDiscrete, "
        f"MultiBinary, uint8 images, and Dict of these (its key {ACTION_MASK!r} is no observation)."
    )


def _cnn_side(pixels: int) -> int:
    for kernel, stride in ((8, 4), (4, 2), (3, 1)):
        pixels = (pixels - kernel) // stride + 1
    return pixels
