"""The last observations of the episode in one, for agents that carry no state between steps."""

from contextlib import suppress
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, iterate
from pydantic import Field

from palaestra.envs.trees import Tree
from palaestra.envs.wrappers.base import ObservationRows
from palaestra.errors import UserError
from palaestra.options import Options

HISTORY, FIRST = "history", "first"
"""Keys of a history observation."""


class HistoryObservation(gymnasium.Wrapper):
    """Turn an observation into `{"history": [T, C], "first": int8 [T]}`, oldest step first.

    `first[t]` is 1 where step t is the first of the episode. What stands before it is padding (the
    first observation again, so that it lies in the space) that a reader has to ignore. All zeros
    say that the episode began before the window.

    Images (uint8, three dimensions) keep their shape, `[T, *shape]`; any other observation is
    flattened to a vector, Discrete ones to one-hot, as `gymnasium.spaces.utils.flatten` does.

    Args:
      env: the environment.
      length: T, the number of steps that an agent sees, the present one included.

    Raises:
      UserError: `length` is no positive integer, or the observations have no vector of fixed size.
    """

    def __init__(self, env: gymnasium.Env, length: int) -> None:
        super().__init__(env)
        if isinstance(length, bool) or not isinstance(length, int) or length < 1:
            raise UserError(f"length: {length!r} is not accepted: an integer from 1 on is.")
        step = _vector_space(env.observation_space)
        history = batch_space(step, length)
        self.observation_space = spaces.Dict({FIRST: spaces.MultiBinary(length), HISTORY: history})
        self._history = np.zeros((length, *step.shape), step.dtype)
        self._first = np.zeros(length, np.int8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Reset the environment and forget what was."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._history[:] = self._vector(observation)
        self._first[:-1], self._first[-1] = 0, 1
        return self._observation(), info

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], Any, bool, bool, dict[str, Any]]:
        """Step the environment; the oldest observation falls out."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._history[:-1], self._history[-1] = self._history[1:], self._vector(observation)
        self._first[:-1], self._first[-1] = self._first[1:], 0
        return self._observation(), reward, terminated, truncated, info

    def _vector(self, observation: Any) -> Any:
        space = self.env.observation_space
        return observation if _is_image(space) else spaces.utils.flatten(space, observation)

    def _observation(self) -> dict[str, np.ndarray]:
        return {FIRST: self._first.copy(), HISTORY: self._history.copy()}


class HistoryOptions(Options):
    """Options of `history`."""

    length: int = Field(16, ge=1, description="steps that are seen, the present one included")


class VectorHistory(ObservationRows):
    """`HistoryObservation` for vector environments; final observations are wrapped too.

    Args:
      env: the vector environment.
      options: fields of `HistoryOptions`.

    Raises:
      UserError: the observations have no vector of fixed size, or an option is not accepted.
    """

    Config = HistoryOptions

    def _space(self, space: gymnasium.Space[Any]) -> gymnasium.Space[Any]:
        step, length = _vector_space(space), self.options.length
        self._single, self._batch = space, batch_space(space, self.num_envs)
        self._history = np.zeros((self.num_envs, length, *step.shape), step.dtype)
        self._first = np.zeros((self.num_envs, length), np.int8)
        return spaces.Dict({FIRST: spaces.MultiBinary(length), HISTORY: batch_space(step, length)})

    def _show(
        self, observation: Tree, begins: np.ndarray, new: np.ndarray
    ) -> dict[str, np.ndarray]:
        x = self._vectors(observation, self.num_envs)
        history, first = self._history, self._first
        history[new, :-1], history[new, -1] = history[new, 1:], x[new]
        first[new, :-1], first[new, -1] = first[new, 1:], 0
        history[begins] = x[begins][:, None]
        first[begins, :-1], first[begins, -1] = 0, 1
        return {FIRST: first.copy(), HISTORY: history.copy()}

    def _show_final(self, observation: Tree, rows: np.ndarray) -> dict[str, np.ndarray]:
        x = self._vectors(observation, len(rows))
        first = np.zeros((len(rows), 1), np.int8)
        return {
            FIRST: np.concatenate([self._first[rows, 1:], first], axis=1),
            HISTORY: np.concatenate([self._history[rows, 1:], x[:, None]], axis=1),
        }

    def _vectors(self, observation: Tree, rows: int) -> np.ndarray:
        """Flatten observations of M rows, `[M, C]`; images stay as they are."""
        space = self._single
        if _is_image(space):
            images: np.ndarray = observation
            return images
        if isinstance(space, spaces.Box):
            return np.asarray(observation, space.dtype).reshape(rows, -1)
        batch = self._batch if rows == self.num_envs else batch_space(space, rows)
        flat: list[Any] = [spaces.utils.flatten(space, x) for x in iterate(batch, observation)]
        return np.stack(flat)

    def get_state(self) -> dict[str, Any]:
        """Return the histories of all rows."""
        own = {"history": self._history.copy(), "first": self._first.copy()}
        return super().get_state() | own

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue exactly where `get_state` was called."""
        super().set_state(state)
        self._history, self._first = np.array(state["history"]), np.array(state["first"])


def step_space(space: gymnasium.Space[Any]) -> spaces.Box | None:
    """Return the space of one step, `[C]`, of a history observation; None where it is none."""
    if not isinstance(space, spaces.Dict) or set(space.spaces) != {FIRST, HISTORY}:
        return None
    history, first = space[HISTORY], space[FIRST]
    if not isinstance(history, spaces.Box) or not isinstance(first, spaces.MultiBinary):
        return None
    if len(history.shape) < 2 or first.shape != history.shape[:1]:
        return None
    return spaces.Box(history.low[0], history.high[0], dtype=history.dtype.type)


def _vector_space(space: gymnasium.Space[Any]) -> spaces.Box:
    if _is_image(space):
        assert isinstance(space, spaces.Box)
        return space
    flat: gymnasium.Space[Any] = space
    with suppress(NotImplementedError):
        flat = spaces.utils.flatten_space(space)
    if not isinstance(flat, spaces.Box):
        raise UserError(
            f"observation_space: {space} has no history; accepted: spaces that Gymnasium flattens "
            "to vectors of fixed size (Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple)."
        )
    return flat


def _is_image(space: gymnasium.Space[Any]) -> bool:
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3
