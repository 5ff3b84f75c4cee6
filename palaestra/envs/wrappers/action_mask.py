"""Legal actions as a part of the observation, for agents that must not choose others."""

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from palaestra.errors import EnvironmentFailure, UserError
from palaestra.options import Options, validate


def _masked_space(observation_space: gymnasium.Space, action_space: gymnasium.Space) -> spaces.Dict:
    if not isinstance(action_space, spaces.Discrete):
        raise UserError(f"action_space: {action_space} has no action mask; accepted: Discrete.")
    mask = spaces.MultiBinary(int(action_space.n))
    return spaces.Dict({"observation": observation_space, "action_mask": mask})


class ActionMaskOptions(Options):
    """`action-mask` has no options."""


def _observe(observation: Any, info: dict[str, Any]) -> dict[str, Any]:
    if "action_mask" not in info:
        raise UserError("action mask: the environment gives no info['action_mask'].")
    return {"observation": observation, "action_mask": info["action_mask"].astype(np.int8)}


def _observe_final(infos: dict[str, Any]) -> Any:
    final, info = infos["final_obs"], infos["final_info"]
    if not (isinstance(final, np.ndarray) and final.dtype == object):
        return _observe(final, info)
    wrapped = np.full(len(final), None, object)
    for row in np.flatnonzero(infos["_final_obs"]):
        wrapped[row] = _observe(final[row], {"action_mask": info["action_mask"][row]})
    return wrapped


class ActionMask(gymnasium.Wrapper):
    """Turn `info["action_mask"]` into `{"observation": ..., "action_mask": int8 [A]}`.

    Raises:
      UserError: the actions are not discrete, or the environment gives no mask.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.observation_space = _masked_space(env.observation_space, env.action_space)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Reset the environment and add the mask."""
        observation, info = self.env.reset(seed=seed, options=options)
        return _observe(observation, info), info

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        """Step the environment and add the mask."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return _observe(observation, info), reward, terminated, truncated, info


class VectorActionMask(VectorWrapper):
    """`ActionMask` for vector environments; final observations in the infos are wrapped too.

    It reads `action_mask [N, A]` in the infos and, with a same-step autoreset,
    `final_info["action_mask"]`. Final observations may be dense, as native vector environments give
    them, or an object array, as environments that are stepped row by row do. It has no state.

    Raises:
      UserError: the actions are not discrete, or the environment gives no mask.
      EnvironmentFailure: a row that has to act has no legal action.
    """

    Config: ClassVar[type[Options]] = ActionMaskOptions
    stateless = True

    def __init__(self, env: VectorEnv, **options: Any) -> None:
        super().__init__(env)
        validate(self.Config, options)
        self._same_step = env.metadata.get("autoreset_mode") == AutoresetMode.SAME_STEP
        self.single_observation_space = _masked_space(
            env.single_observation_space, env.single_action_space
        )
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Reset the environments and add the masks."""
        everywhere = "reset_mask" not in (options or {})  # Gymnasium takes it out
        observation, infos = self.env.reset(seed=seed, options=options)
        masked = _observe(observation, infos)
        if everywhere:
            self._check(masked, "reset", np.ones(self.num_envs, bool))
        return masked, infos

    def step(
        self, actions: Any
    ) -> tuple[dict[str, Any], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step the environments and add the masks."""
        observation, reward, terminated, truncated, infos = self.env.step(actions)
        if "final_obs" in infos:
            infos["final_obs"] = _observe_final(infos)
        masked = _observe(observation, infos)
        # Where the next step resets a row, the board is over and no action is left.
        acts = np.ones(self.num_envs, bool) if self._same_step else ~(terminated | truncated)
        self._check(masked, "step", acts)
        return masked, reward, terminated, truncated, infos

    def _check(self, masked: dict[str, Any], doing: str, acts: np.ndarray) -> None:
        stuck = acts & ~masked["action_mask"].any(axis=1)
        if stuck.any():
            env_id = self.spec.id if self.spec is not None else str(self.unwrapped)
            text = "info['action_mask'] allows no action; at least one has to be legal"
            raise EnvironmentFailure(
                env_id, doing, "no legal action", text, row=int(stuck.argmax())
            )
