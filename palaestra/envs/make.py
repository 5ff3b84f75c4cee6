"""`make_vec`: any registered environment by name, as a vector environment."""

import importlib
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import VectorEnv
from pydantic import BaseModel

from palaestra.envs.recorded import RowsVectorEnv
from palaestra.errors import UserError, did_you_mean
from palaestra.registry import registry

WRAPPERS = {"action-mask": "palaestra.envs.wrappers.action_mask:VectorActionMask"}
"""Names of vector wrappers -> "module:Class", imported on use."""

_OF_GYMNASIUM = ("render_mode", "max_episode_steps", "disable_env_checker")


def make_vec(
    env_id: str, num_envs: int, wrappers: Sequence[str] = (), **kwargs: Any
) -> VectorEnv[Any, Any, Any]:
    """Return `num_envs` environments as one, wrapped from the inside out.

    A vector version that the environment brings is used if it can give its state, or if there is no
    other; it resets as its metadata says. Any other environment is stepped row by row by
    `RowsVectorEnv`, which resets in the same step and gives the state of any of them.

    Args:
      env_id: a name registered with Gymnasium or under the registry kind "env".
      num_envs: number of rows.
      wrappers: names of `WRAPPERS`, innermost first.
      kwargs: options of the environment.

    Raises:
      UserError: an unknown environment, wrapper or option, or no environments at all.
    """
    if num_envs < 1:
        raise UserError(f"num_envs: {num_envs!r} is not accepted: an integer from 1 is.")
    if env_id in gymnasium.registry:
        envs = _from_gymnasium(env_id, num_envs, kwargs)
    else:
        envs = _from_registry(env_id, num_envs, kwargs)
    for name in wrappers:
        envs = _wrapper(name)(envs)
    return envs


def _from_gymnasium(env_id: str, num_envs: int, kwargs: dict[str, Any]) -> VectorEnv[Any, Any, Any]:
    spec = gymnasium.registry[env_id]
    if spec.vector_entry_point is not None:
        native = _creator(spec.vector_entry_point)
        if _gives_state(native) or spec.entry_point is None:
            _check_options(env_id, native, kwargs, ())
            return gymnasium.make_vec(env_id, num_envs, **kwargs)
    _check_options(env_id, _creator(spec.entry_point), kwargs, _OF_GYMNASIUM)
    rows = RowsVectorEnv([partial(gymnasium.make, env_id, **kwargs)] * num_envs)
    rows.spec = rows.envs[0].env.spec
    return rows


def _from_registry(env_id: str, num_envs: int, kwargs: dict[str, Any]) -> VectorEnv[Any, Any, Any]:
    known = registry.entries("env")
    if env_id not in known:
        names = [*known, *gymnasium.registry]
        raise UserError(f"unknown env {env_id!r}: {did_you_mean(env_id, names)}")
    cls = registry.get("env", env_id)
    _check_options(env_id, cls, kwargs, ())
    return RowsVectorEnv([partial(cls, **kwargs)] * num_envs)


def _gives_state(creator: Any) -> bool:
    return hasattr(creator, "get_state") and hasattr(creator, "set_state")


def _creator(entry_point: Any) -> Callable[..., Any]:
    return load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point


def _check_options(
    env_id: str, creator: Callable[..., Any], kwargs: dict[str, Any], also: tuple[str, ...]
) -> None:
    """Refuse options that `creator` does not take; one that takes any checks them itself."""
    parameters = inspect.signature(creator).parameters
    config = getattr(creator, "Config", None)
    if isinstance(config, type) and issubclass(config, BaseModel):
        accepted = {*config.model_fields, *parameters} - {"options", "kwargs"}
    elif any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    else:
        accepted = set(parameters)
    accepted = accepted - {"num_envs"} | set(also)
    for key in kwargs:
        if key not in accepted:
            raise UserError(f"{env_id}: {key}: unknown option; {did_you_mean(key, accepted)}")


def _wrapper(name: str) -> Callable[[VectorEnv[Any, Any, Any]], VectorEnv[Any, Any, Any]]:
    if name not in WRAPPERS:
        raise UserError(f"wrappers: unknown wrapper {name!r}; {did_you_mean(name, WRAPPERS)}")
    module, _, attribute = WRAPPERS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
