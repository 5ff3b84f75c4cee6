"""`make_vec`: any registered environment by name, as a vector environment."""

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import VectorEnv

from palaestra.envs.recorded import RowsVectorEnv
from palaestra.envs.signatures import check_keywords
from palaestra.envs.trees import has_text
from palaestra.envs.wrappers.build import (
    Wrappers,
    WrapperSpec,
    import_module,
    named_modules,
    read_wrappers,
)
from palaestra.errors import EnvironmentFailure, RunError, UserError, did_you_mean
from palaestra.registry import registry

__all__ = ["known_name", "make_vec", "named_modules", "single_maker"]

_OF_GYMNASIUM = ("render_mode", "max_episode_steps", "disable_env_checker")

_EXTRAS = {
    "Box2D": "gymnasium[box2d]",
    "mujoco": "gymnasium[mujoco]",
    "pygame": "gymnasium[classic-control]",
    "ale_py": "palaestra[atari]",
    "stable_retro": "palaestra[retro]",
    "minigrid": "minigrid",
}
"""Package by import name -> what to install."""


def make_vec(
    env_id: str,
    num_envs: int,
    wrappers: Wrappers = (),
    discount: float = 0.99,
    **options: Any,
) -> VectorEnv[Any, Any, Any]:
    """Return `num_envs` environments as one, wrapped from the inside out.

    A vector version that the environment brings is used if it can give its state, or if there is no
    other; it resets as its metadata says. Any other environment, and any that a wrapper of single
    environments is put around, is stepped row by row by `RowsVectorEnv`, which resets in the same
    step and gives the state of any of them. Texts in observations are arrays of strings, `[N]`.

    Args:
      env_id: a name registered with Gymnasium or under the registry kind "env"; "module:name"
        imports the module first, as in Gymnasium.
      num_envs: number of rows.
      wrappers: innermost first: registered names, "module:Class" of a Gymnasium wrapper, or
        `{"name": ..., option: ...}` with its options.
      discount: of the run, for wrappers that need it and are not given another.
      options: of the environment.

    Raises:
      UserError: an unknown environment, wrapper or option, a missing package, or no environments.
      EnvironmentFailure: the environment cannot be made.
    """
    if num_envs < 1:
        raise UserError(f"num_envs: {num_envs!r} is not accepted: an integer from 1 is.")
    of_rows, around = read_wrappers(wrappers, discount)
    with _failures_of(env_id):
        name = known_name(env_id)
        native = None if of_rows else _native(name, options)
        if native is not None:
            envs = gymnasium.make_vec(name, num_envs, **options)
            if has_text(envs.single_observation_space):
                # Not at the top: few environments show texts.
                from palaestra.envs.wrappers.text import TextArrays

                envs = TextArrays(envs)
        else:
            rows = RowsVectorEnv([_single(name, options)] * num_envs, of_rows)
            rows.spec = rows.envs[0].made.spec
            envs = rows
    for wrapper in around:
        envs = wrapper(envs)
    return envs


def single_maker(
    env_id: str, wrappers: Wrappers = (), **options: Any
) -> Callable[[], gymnasium.Env[Any, Any]]:
    """Return a function that makes one such environment, without vector wrappers.

    Raises:
      UserError: as in `make_vec`, or wrappers of vector environments, or no single environment.
    """
    of_rows, around = read_wrappers(wrappers, 0.99)
    if around:
        raise UserError(
            f"wrappers: {', '.join(spec.name for spec in around)} cannot be put around a single "
            f"environment of {env_id}; wrappers of rows are accepted."
        )
    with _failures_of(env_id):
        make = _single(known_name(env_id), options)
    return partial(_wrapped, make, of_rows)


def _wrapped(
    make: Callable[[], gymnasium.Env[Any, Any]], wrappers: Sequence[WrapperSpec]
) -> gymnasium.Env[Any, Any]:
    env = make()
    for wrapper in wrappers:
        env = wrapper(env)
    return env


def known_name(env_id: str) -> str:
    """Return the registered name of an environment, importing the module that it may stand behind.

    Raises:
      UserError: there is none of this name.
    """
    name = env_id
    if env_id not in gymnasium.registry and ":" in env_id:
        module, _, name = env_id.partition(":")
        import_module(f"env {env_id!r}", module)
    if name in gymnasium.registry or name in registry.entries("env"):
        return name
    known = [*registry.entries("env"), *gymnasium.registry]
    hint = " It needs ale-py: pip install 'palaestra[atari]'." if name.startswith("ALE/") else ""
    raise UserError(f"unknown env {env_id!r}: {did_you_mean(name, known)}{hint}")


def _native(name: str, options: Mapping[str, Any]) -> Callable[..., Any] | None:
    """Return the vector version that is to be used, its options checked; None for row by row."""
    spec = gymnasium.registry.get(name)
    if spec is None or spec.vector_entry_point is None:
        return None
    native = _creator(spec.vector_entry_point)
    if not _gives_state(native) and spec.entry_point is not None:
        return None
    check_keywords(name, native, options)
    return native


def _single(name: str, options: Mapping[str, Any]) -> Callable[[], gymnasium.Env[Any, Any]]:
    """Return a function that makes one environment, its options checked."""
    if name not in gymnasium.registry:
        cls = registry.get("env", name)
        check_keywords(name, cls, options)
        return partial(cls, **options)
    entry_point = gymnasium.registry[name].entry_point
    if entry_point is None:
        raise UserError(
            f"{name} has no single environments: its rows can be neither wrapped nor checked alone."
        )
    check_keywords(name, _creator(entry_point), options, _OF_GYMNASIUM)
    return partial(gymnasium.make, name, **options)


def _gives_state(creator: Any) -> bool:
    return hasattr(creator, "get_state") and hasattr(creator, "set_state")


def _creator(entry_point: Any) -> Callable[..., Any]:
    return load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point


@contextmanager
def _failures_of(env_id: str) -> Iterator[None]:
    """Name what goes wrong while an environment is made."""
    try:
        yield
    except (UserError, RunError):
        raise
    except (gymnasium.error.DependencyNotInstalled, ModuleNotFoundError) as error:
        raise UserError(
            f"env {env_id!r} needs a package that is not installed: {error}{_advice(error)}"
        ) from error
    except Exception as error:
        raise EnvironmentFailure.of(error, env_id, "make") from error


def _advice(error: Exception) -> str:
    told = f"{error} {getattr(error, 'name', None) or ''} {error.__cause__ or ''}".lower()
    for package, extra in _EXTRAS.items():
        if package.lower() in told and importlib.util.find_spec(package) is None:
            return f" (pip install '{extra}')"
    return ""
