"""What wrappers of vector environments share: options, the mask, final observations, row ends.

A wrapper is a subclass of `gymnasium.Wrapper`, applied to each row, or of
`gymnasium.vector.VectorWrapper`, applied to all rows at once. It takes the environment and its
options as keyword arguments; `Config` is the model of the options. What it keeps, it gives and
takes by `get_state` and `set_state`; one that keeps nothing says so by `stateless = True`.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from palaestra.envs.rows import final_rows, put_final
from palaestra.envs.trees import Tree, map_tree
from palaestra.options import Options, validate

OBSERVATION, ACTION_MASK = "observation", "action_mask"
"""Keys of an observation with a mask of legal actions."""


def is_masked(space: gymnasium.Space[Any]) -> bool:
    """Whether observations are `{"observation": ..., "action_mask": ...}`."""
    return isinstance(space, spaces.Dict) and set(space.spaces) == {OBSERVATION, ACTION_MASK}


class RowWrapper(VectorWrapper):
    """Base of vector wrappers that keep something for each row: it knows where episodes begin.

    Args:
      env: the vector environment.
      options: fields of `Config`.

    Raises:
      UserError: an option that is not accepted.
    """

    Config: ClassVar[type[Options]] = Options

    def __init__(self, env: VectorEnv[Any, Any, Any], **options: Any) -> None:
        super().__init__(env)
        self.options: Any = validate(self.Config, options)
        self._same_step = env.metadata.get("autoreset_mode") == AutoresetMode.SAME_STEP
        self._over = np.zeros(env.num_envs, bool)
        """Rows whose next step ignores the action and resets them (next-step autoreset)."""

    def _reset(self, seed: Any, options: dict[str, Any] | None) -> tuple[Tree, Any, np.ndarray]:
        """Reset the environments; return observations, infos and the rows that were reset."""
        mask = (options or {}).get("reset_mask")
        begins = np.ones(self.num_envs, bool) if mask is None else np.array(mask, bool)
        observation, infos = self.env.reset(seed=seed, options=options)
        self._over[begins] = False
        return observation, infos, begins

    def _begins(self, done: np.ndarray) -> np.ndarray:
        """Return the rows that show the first observation of an episode after a step."""
        if self._same_step:
            return done
        begins, self._over = self._over, done
        return begins

    def get_state(self) -> dict[str, Any]:
        """Return what the wrapper itself keeps: plain values and arrays."""
        return {"over": self._over.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue exactly where `get_state` was called."""
        self._over = np.array(state["over"])


class ObservationRows(RowWrapper, ABC):
    """Base of vector wrappers that change observations, the final ones included.

    Under a mask of legal actions, `{"observation": ..., "action_mask": ...}`, they change the
    observation and leave the mask.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], **options: Any) -> None:
        super().__init__(env, **options)
        space = env.single_observation_space
        self._masked = is_masked(space)
        if self._masked:
            assert isinstance(space, spaces.Dict)
            seen: gymnasium.Space[Any] = spaces.Dict(
                {OBSERVATION: self._space(space[OBSERVATION]), ACTION_MASK: space[ACTION_MASK]}
            )
        else:
            seen = self._space(space)
        self.single_observation_space = seen
        self.observation_space = batch_space(seen, env.num_envs)

    @abstractmethod
    def _space(self, space: gymnasium.Space[Any]) -> gymnasium.Space[Any]:
        """Return the space of what the wrapper shows of observations from `space`.

        Raises:
          UserError: it cannot show such observations.
        """

    @abstractmethod
    def _show(self, observation: Tree, begins: np.ndarray, new: np.ndarray) -> Tree:
        """Return what is seen of `observation [N, ...]`, and keep what later steps need.

        Args:
          observation: of the environment; not to be kept or changed.
          begins: bool `[N]`, rows that show the first observation of an episode.
          new: bool `[N]`, rows that show an observation for the first time: all of them, but for
            a reset of some rows.
        """

    @abstractmethod
    def _show_final(self, observation: Tree, rows: np.ndarray) -> Tree:
        """Return what is seen of the final `observation [M, ...]` of `rows [M]`; keep nothing."""

    def _watch(self, observation: Tree) -> None:
        """See observations `[M, ...]` before any of the step is shown."""

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Tree, dict[str, Any]]:
        """Reset the environments and change their observations."""
        observation, infos, begins = self._reset(seed, options)
        self._watch(map_tree(lambda x: x[begins], self._inside(observation)))
        return self._shown(observation, begins, begins), infos

    def step(self, actions: Any) -> tuple[Tree, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step the environments and change their observations."""
        observation, reward, terminated, truncated, infos = self.env.step(actions)
        done = terminated | truncated
        self._watch(self._inside(observation))
        if self._same_step and done.any():
            rows = np.flatnonzero(done)
            final = final_rows(infos, rows)
            shown = self._show_final(self._inside(final), rows)
            put_final(infos, rows, self._outside(final, shown), self.num_envs)
        shown = self._shown(observation, self._begins(done), np.ones(self.num_envs, bool))
        return shown, reward, terminated, truncated, infos

    def _shown(self, observation: Tree, begins: np.ndarray, new: np.ndarray) -> Tree:
        return self._outside(observation, self._show(self._inside(observation), begins, new))

    def _inside(self, observation: Tree) -> Tree:
        return observation[OBSERVATION] if self._masked else observation

    def _outside(self, observation: Tree, shown: Tree) -> Tree:
        if not self._masked:
            return shown
        return {OBSERVATION: shown, ACTION_MASK: observation[ACTION_MASK]}
