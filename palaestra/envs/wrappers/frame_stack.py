"""The last frames as one observation, for agents that carry no state between steps."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from pydantic import Field

from palaestra.envs.trees import Tree
from palaestra.envs.wrappers.base import ObservationRows
from palaestra.errors import UserError
from palaestra.options import Options


class FrameStackOptions(Options):
    """Options of `frame-stack`."""

    frames: int = Field(4, ge=1, description="observations that are seen, the present one included")


class VectorFrameStack(ObservationRows):
    """Turn an observation `[...]` into the last k of the episode, `[k, ...]`, oldest first.

    Images (uint8, three dimensions) stay images: their channels are put one after the other. Before
    the first step of an episode stands its first observation again.

    Args:
      env: a vector environment with Box observations.
      options: fields of `FrameStackOptions`.

    Raises:
      UserError: other observations, or an option that is not accepted.
    """

    Config = FrameStackOptions

    def _space(self, space: gymnasium.Space[Any]) -> gymnasium.Space[Any]:
        if not isinstance(space, spaces.Box):
            raise UserError(f"observation_space: {space} has no frames to stack; accepted: Box.")
        k = self.options.frames
        self._frames = np.zeros((self.num_envs, k, *space.shape), space.dtype)
        self._is_image = space.dtype == np.uint8 and len(space.shape) == 3
        self._channels_last = self._is_image and space.shape[2] < space.shape[0]
        stacked = batch_space(space, k)
        if not self._is_image:
            return stacked
        low, high = (self._arranged(bound[None])[0] for bound in (stacked.low, stacked.high))  # type: ignore[attr-defined]
        return spaces.Box(low, high, dtype=np.uint8)

    def _show(self, observation: Tree, begins: np.ndarray, new: np.ndarray) -> np.ndarray:
        frames = self._frames
        frames[new, :-1], frames[new, -1] = frames[new, 1:], observation[new]
        frames[begins] = observation[begins][:, None]
        return self._arranged(frames).copy()

    def _show_final(self, observation: Tree, rows: np.ndarray) -> np.ndarray:
        frames = np.concatenate([self._frames[rows, 1:], observation[:, None]], axis=1)
        return self._arranged(frames)

    def _arranged(self, frames: np.ndarray) -> np.ndarray:
        """Bring frames `[M, k, ...]` into the shape that is seen."""
        if not self._is_image:
            return frames
        M, k, *shape = frames.shape
        if self._channels_last:
            height, width, channels = shape
            return np.moveaxis(frames, 1, 3).reshape(M, height, width, k * channels)
        channels, height, width = shape
        return frames.reshape(M, k * channels, height, width)

    def get_state(self) -> dict[str, Any]:
        """Return the frames of all rows."""
        return super().get_state() | {"frames": self._frames.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue exactly where `get_state` was called."""
        super().set_state(state)
        self._frames = np.array(state["frames"])
