"""Observations and rewards in units of what has been seen so far.

They give the numbers of `VecNormalize` of Stable-Baselines3 on the same stream. Statistics are part
of the state; `palaestra.envs.state.load_statistics` carries them into another environment, where
they change no more.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from pydantic import Field

from palaestra.envs.trees import Tree
from palaestra.envs.wrappers.base import ObservationRows, RowWrapper
from palaestra.envs.wrappers.statistics import RunningStatistics, Statistics
from palaestra.errors import UserError
from palaestra.options import Options

REWARD = "reward"


class NormaliseObservationOptions(Options):
    """Options of `normalise-observation`."""

    epsilon: float = Field(
        1e-8, gt=0, allow_inf_nan=False, description="added to the variance before the root"
    )
    clip: float = Field(
        10.0, gt=0, allow_inf_nan=False, description="largest absolute value that is seen"
    )


class NormaliseRewardOptions(NormaliseObservationOptions):
    """Options of `normalise-reward`."""

    discount: float = Field(
        0.99, ge=0, le=1, description="of the return; not given: the discount of the run"
    )


class VectorNormaliseObservation(ObservationRows):
    """Show `(x - mean) / sqrt(variance + epsilon)`, clipped, with the statistics of all rows.

    Box observations are normalised, and the Box leaves of Dict observations; other leaves stay
    as they are. Final observations are normalised and not counted.

    Args:
      env: the vector environment.
      options: fields of `NormaliseObservationOptions`.

    Raises:
      UserError: no Box in the observations, or an option that is not accepted.
    """

    name: ClassVar[str] = "normalise-observation"
    Config = NormaliseObservationOptions

    def _space(self, space: gymnasium.Space[Any]) -> gymnasium.Space[Any]:
        boxes = dict(_boxes(space, ""))
        if not boxes:
            raise UserError(
                f"observation_space: {space} cannot be normalised; accepted: Box, or Dict with "
                "a Box in it."
            )
        self.frozen = False
        self._seen = {leaf: RunningStatistics.empty(box.shape) for leaf, box in boxes.items()}
        self._refresh()
        return self._normalised_space(space)

    def _normalised_space(self, space: gymnasium.Space[Any]) -> gymnasium.Space[Any]:
        if isinstance(space, spaces.Dict):
            return spaces.Dict({k: self._normalised_space(s) for k, s in space.spaces.items()})
        if isinstance(space, spaces.Box):
            clip = self.options.clip
            return spaces.Box(-clip, clip, space.shape, np.float32)
        return space

    def _watch(self, observation: Tree) -> None:
        if self.frozen:
            return
        for path, leaf in _leaves(observation, ""):
            if path in self._seen:
                self._seen[path] = self._seen[path].update(leaf)
        self._refresh()

    def _refresh(self) -> None:
        """Compute shift and scale of each leaf."""
        self._units: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for leaf, seen in self._seen.items():
            known = RunningStatistics.prior(seen.mean.shape).merge(seen)
            self._units[leaf] = known.mean, np.sqrt(known.var + self.options.epsilon)

    def _show(self, observation: Tree, begins: np.ndarray, new: np.ndarray) -> Tree:
        return self._normalised(observation, "")

    def _show_final(self, observation: Tree, rows: np.ndarray) -> Tree:
        return self._normalised(observation, "")

    def _normalised(self, observation: Tree, path: str) -> Tree:
        if isinstance(observation, dict):
            return {k: self._normalised(x, f"{path}/{k}") for k, x in observation.items()}
        if path not in self._units:
            return observation
        mean, deviation = self._units[path]
        clip = self.options.clip
        return np.clip((observation - mean) / deviation, -clip, clip).astype(np.float32)

    def statistics(self) -> Statistics:
        """Return what has been seen of each leaf."""
        return {leaf: seen.plain() for leaf, seen in self._seen.items()}

    def load_statistics(self, statistics: Statistics, frozen: bool) -> None:
        """Take statistics; frozen ones change no more.

        Raises:
          UserError: they are of other observations.
        """
        self._seen = _checked(self.name, statistics, self._seen)
        self.frozen = frozen
        self._refresh()

    def get_state(self) -> dict[str, Any]:
        """Return the statistics."""
        own = {"statistics": self.statistics(), "frozen": self.frozen}
        return super().get_state() | own

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue exactly where `get_state` was called."""
        super().set_state(state)
        self.load_statistics(state["statistics"], state["frozen"])


class VectorNormaliseReward(RowWrapper):
    """Divide rewards by the standard deviation of the discounted return, and clip them.

    The return of a row is `R_t = discount * R_tm1 + r_t`, from 0 at the start of each episode; its
    variance over all rows and steps so far gives the unit. The mean of rewards is left alone, so
    that no reward changes its sign. `infos["raw_reward"]`, float64 `[N]`, tells the environment's
    own.

    Args:
      env: the vector environment.
      options: fields of `NormaliseRewardOptions`.

    Raises:
      UserError: an option that is not accepted.
    """

    name: ClassVar[str] = "normalise-reward"
    Config = NormaliseRewardOptions

    def __init__(self, env: VectorEnv[Any, Any, Any], **options: Any) -> None:
        super().__init__(env, **options)
        self.frozen = False
        self._seen = RunningStatistics.empty(())
        self._returns = np.zeros(env.num_envs)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environments and their returns."""
        observation, infos, begins = self._reset(seed, options)
        self._returns[begins] = 0.0
        return observation, infos

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step the environments and normalise their rewards."""
        observation, reward, terminated, truncated, infos = self.env.step(actions)
        done = terminated | truncated
        begins = self._begins(done)
        # Under a next-step autoreset these rows were reset instead of stepped.
        paid = np.ones(self.num_envs, bool) if self._same_step else ~begins
        self._returns = np.where(paid, self._returns * self.options.discount + reward, 0.0)
        if not self.frozen:
            self._seen = self._seen.update(self._returns[paid])
        self._returns[done] = 0.0
        infos.setdefault("raw_reward", np.array(reward, np.float64))
        var = RunningStatistics.prior(()).merge(self._seen).var
        clip = self.options.clip
        normalised = np.clip(reward / np.sqrt(var + self.options.epsilon), -clip, clip)
        return observation, normalised, terminated, truncated, infos

    def statistics(self) -> Statistics:
        """Return what has been seen of the discounted return."""
        return {REWARD: self._seen.plain()}

    def load_statistics(self, statistics: Statistics, frozen: bool) -> None:
        """Take statistics; frozen ones change no more.

        Raises:
          UserError: they are not of rewards.
        """
        self._seen = _checked(self.name, statistics, {REWARD: self._seen})[REWARD]
        self.frozen = frozen

    def get_state(self) -> dict[str, Any]:
        """Return the statistics and the returns of all rows."""
        own = {"statistics": self.statistics(), "frozen": self.frozen}
        return super().get_state() | own | {"returns": self._returns.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue exactly where `get_state` was called."""
        super().set_state(state)
        self.load_statistics(state["statistics"], state["frozen"])
        self._returns = np.array(state["returns"])


def _boxes(space: gymnasium.Space[Any], path: str) -> Iterator[tuple[str, spaces.Box]]:
    """Yield the Box leaves of a space by path."""
    if isinstance(space, spaces.Box):
        yield path, space
    elif isinstance(space, spaces.Dict):
        for key, inner in space.spaces.items():
            yield from _boxes(inner, f"{path}/{key}")


def _leaves(observation: Tree, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of observations by path."""
    if isinstance(observation, dict):
        for key, inner in observation.items():
            yield from _leaves(inner, f"{path}/{key}")
    else:
        yield path, observation


def _checked(
    name: str, statistics: Statistics, expected: dict[str, RunningStatistics]
) -> dict[str, RunningStatistics]:
    """Return statistics read back, if they have the leaves and shapes that are expected."""
    loaded = {leaf: RunningStatistics.from_plain(x) for leaf, x in statistics.items()}
    shapes = {leaf: x.mean.shape for leaf, x in loaded.items()}
    wanted = {leaf: x.mean.shape for leaf, x in expected.items()}
    if shapes != wanted:
        raise UserError(
            f"wrapper {name}: statistics of shapes {shapes} are not accepted: {wanted} are."
        )
    return loaded
