"""Training environments as Stable-Baselines3 takes them, with a state that can be restored."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from palaestra.agents.loop import TrainingEnvs
from palaestra.agents.sb3.native_envs import NativeVecEnv
from palaestra.envs import make_vec
from palaestra.envs.make import known_name, single_maker
from palaestra.envs.recorded import RecordedEpisodes
from palaestra.envs.rows import summed_infos


class RecordedVecEnv(DummyVecEnv):
    """Single environments, one after another, each of which remembers how its episode came about.

    Args:
      env_fns: one function for each environment; it returns `RecordedEpisodes`.
    """

    envs: list[Any]
    restores = True

    def __init__(self, env_fns: list[Callable[[], gymnasium.Env]]) -> None:
        super().__init__(env_fns)
        self.sum_names = _sum_names(self.envs[0])

    @property
    def action_spaces(self) -> list[gymnasium.Space[Any]]:
        """The spaces that random actions are drawn from."""
        return [env.action_space for env in self.envs]

    def get_state(self) -> list[dict[str, Any]]:
        """Return what `set_state` needs to continue exactly here."""
        return [env.get_state() for env in self.envs]

    def set_state(self, state: Sequence[dict[str, Any]]) -> None:
        """Continue from what `get_state` returned.

        Raises:
          UserError: an environment is not deterministic in its seed and actions.
        """
        for env, own in zip(self.envs, state, strict=True):
            env.set_state(own)


class EpisodeSums(gymnasium.Wrapper):
    """Adds to the record of an episode, `info["episode"]`, its step infos summed.

    Args:
      env: within it, `Monitor` makes the record.
      names: of the step infos.
    """

    def __init__(self, env: gymnasium.Env, names: tuple[str, ...]) -> None:
        super().__init__(env)
        self.sums = dict.fromkeys(names, 0.0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environment and the sums."""
        self.sums = dict.fromkeys(self.sums, 0.0)
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment and add its infos."""
        result = self.env.step(action)
        info = result[4]
        for name in self.sums:
            self.sums[name] += float(info.get(name, 0.0))
        if "episode" in info:
            info["episode"] |= self.sums
        return result


def make_envs(
    task: TrainingEnvs, seed: int, discount: float = 0.99
) -> RecordedVecEnv | NativeVecEnv:
    """Return the environments of a task; `discount` is for wrappers that need one.

    Palaestra's own vector environments, and wrapped ones, are those of `make_vec`. Any other one is
    stepped row by row, wrapped and seeded as `stable_baselines3.common.env_util.make_vec_env` does.

    Raises:
      UserError: an unknown wrapper, or an environment without single ones.
    """
    if task.wrappers or _is_native(task.env_id):
        return NativeVecEnv(
            make_vec(task.env_id, task.num_envs, task.wrappers, discount, **dict(task.options))
        )
    make = single_maker(task.env_id, **dict(task.options))
    envs = RecordedVecEnv([_seeded(make, seed + row) for row in range(task.num_envs)])
    envs.seed(seed)
    return envs


def _is_native(env_id: str) -> bool:
    """Whether the environment brings a vector version that can tell its state."""
    spec = gymnasium.registry.get(known_name(env_id))
    if spec is None or spec.vector_entry_point is None:
        return False
    entry = spec.vector_entry_point
    cls: Any = load_env_creator(entry) if isinstance(entry, str) else entry
    mode = getattr(cls, "metadata", {}).get("autoreset_mode")
    return hasattr(cls, "get_state") and mode == AutoresetMode.SAME_STEP


def _seeded(make: Callable[[], gymnasium.Env], seed: int) -> Callable[[], gymnasium.Env]:
    def build() -> gymnasium.Env:
        env = make()
        env.action_space.seed(seed)
        env = Monitor(env)
        if names := _sum_names(env):
            env = EpisodeSums(env, names)
        return RecordedEpisodes(env, reseed=False)

    return build


def _sum_names(env: gymnasium.Env) -> tuple[str, ...]:
    return summed_infos(env)
