"""Vector environments, wrapped or not, as a `VecEnv` of Stable-Baselines3."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv
from stable_baselines3.common.vec_env import VecEnv

from palaestra.envs.rows import final_rows, reset_rows, step_info, summed_infos
from palaestra.envs.state import get_state, is_restorable, set_state
from palaestra.experience.fragment import map_tree
from palaestra.seeding import Role, integers


class NativeVecEnv(VecEnv):
    """A vector environment that resets in the same step and can tell its state.

    At the end of an episode the row's info has `terminal_observation`, `TimeLimit.truncated` and
    the record `episode`: return `r` before wrappers changed rewards, length `l` and the sums that
    the environment names.

    Args:
      envs: the environments; those without a state are reset at every checkpoint.
    """

    def __init__(self, envs: VectorEnv) -> None:
        self.envs = envs
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)
        self.restores = is_restorable(envs)
        self.sum_names: tuple[str, ...] = summed_infos(envs)
        self._returns = np.zeros(envs.num_envs)
        self._lengths = np.zeros(envs.num_envs, np.int64)
        self._sums = {name: np.zeros(envs.num_envs) for name in self.sum_names}

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Give each row a seed of its own from the run's seed, for the next reset."""
        self._seeds = [] if seed is None else [*integers(seed, Role.ENV, range(self.num_envs))]
        return self._seeds

    def reset(self) -> Any:
        """Start new episodes and return their first observations."""
        for total in (self._returns, self._lengths, *self._sums.values()):
            total[:] = 0
        seeds, self._seeds = self._seeds, []
        return (reset_rows(self.envs, seeds) if seeds else self.envs.reset())[0]  # type: ignore[arg-type]

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Step all rows; see the class for the infos."""
        observation, reward, terminated, truncated, info = self.envs.step(self._actions)
        done = terminated | truncated
        self._returns += info.get("raw_reward", reward)
        self._lengths += 1
        for name, total in self._sums.items():
            paid = step_info(info, name, done)
            total += 0 if paid is None else paid
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        rows = np.flatnonzero(done)
        final: Any = final_rows(info, rows) if len(rows) else None
        for i, row in enumerate(rows.tolist()):
            infos[row] = {
                "terminal_observation": map_tree(lambda x, i=i: x[i], final),
                "TimeLimit.truncated": bool(truncated[row] and not terminated[row]),
                "episode": self._end_episode(row),
            }
        # A new array, because the algorithms add to rewards in place.
        return observation, reward.astype(np.float32), done, infos

    def _end_episode(self, row: int) -> dict[str, Any]:
        record = {"r": float(self._returns[row]), "l": int(self._lengths[row])}
        record |= {name: float(total[row]) for name, total in self._sums.items()}
        for total in (self._returns, self._lengths, *self._sums.values()):
            total[row] = 0
        return record

    @property
    def action_spaces(self) -> list[gymnasium.Space[Any]]:
        """The space that random actions are drawn from."""
        return [self.action_space]

    def get_state(self) -> dict[str, Any]:
        """Return what `set_state` needs to continue exactly here."""
        return {
            "envs": get_state(self.envs),
            "returns": self._returns.copy(),
            "lengths": self._lengths.copy(),
            "sums": {name: total.copy() for name, total in self._sums.items()},
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `get_state` returned."""
        set_state(self.envs, state["envs"])
        # Copies, because they are updated in place.
        self._returns, self._lengths = state["returns"].copy(), state["lengths"].copy()
        self._sums = {name: total.copy() for name, total in state["sums"].items()}

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute of the vector environment, once for each row asked for."""
        return [getattr(self.envs, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the vector environment, which is that of all rows."""
        setattr(self.envs, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
        """Call a method of the vector environment and return its result for each row asked for."""
        result = getattr(self.envs, method_name)(*args, **kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Return False for each row: there are no single environments."""
        return [False for _ in self._get_indices(indices)]
