"""The state of environments with their wrappers, and the statistics that wrappers gather.

The state of a wrapped vector environment is `{"env": state of what is inside, "own": what the
outermost wrapper keeps}`; a wrapper that keeps nothing does not show in it.
"""

from collections.abc import Iterator
from typing import Any

from gymnasium.vector import VectorEnv, VectorWrapper

from palaestra.envs.wrappers.statistics import Statistics, merge_statistics
from palaestra.errors import UserError

__all__ = [
    "freeze_statistics",
    "get_state",
    "is_restorable",
    "load_statistics",
    "merge_statistics",
    "set_state",
    "wrapper_statistics",
]

Env = VectorEnv[Any, Any, Any]
State = dict[str, Any]


def is_restorable(env: Env) -> bool:
    """Whether `get_state` and `set_state` continue this vector environment exactly.

    They do if every wrapper gives and takes what it keeps, or says that it keeps nothing
    (`stateless = True`), and the environment inside can tell its state. Wrappers of rows that say
    neither are tried: two rows are played, and compared after one took the state of the other.
    """
    *wrappers, base = _layers(env)
    if not all(_tells(wrapper) or getattr(wrapper, "stateless", False) for wrapper in wrappers):
        return False
    return _tells(base) and getattr(base, "restores_wrappers", True)


def get_state(env: Env) -> State:
    """Return what `set_state` needs to continue exactly here, if `is_restorable`."""
    if not isinstance(env, VectorWrapper):
        result: State = env.get_state()  # type: ignore[attr-defined]
        return result
    if not _tells(env):
        return get_state(env.env)
    return {"env": get_state(env.env), "own": env.get_state()}  # type: ignore[attr-defined]


def set_state(env: Env, state: State) -> None:
    """Continue exactly where `get_state` was called on the same environment with the same wrappers.

    Raises:
      UserError: the environment or a wrapper cannot be brought where it was.
    """
    if not isinstance(env, VectorWrapper):
        env.set_state(state)  # type: ignore[attr-defined]
    elif not _tells(env):
        set_state(env.env, state)
    else:
        set_state(env.env, state["env"])
        env.set_state(state["own"])  # type: ignore[attr-defined]


def wrapper_statistics(env: Env) -> dict[str, Statistics]:
    """Return what wrappers have gathered, by the name of the wrapper; empty without such wrappers.

    Each vector environment gathers its own, so that N workers have N of them;
    `merge_statistics` puts them together.
    """
    return {name: wrapper.statistics() for name, wrapper in _gathering(env).items()}


def load_statistics(env: Env, statistics: dict[str, Statistics], frozen: bool = True) -> None:
    """Give wrappers the statistics that `wrapper_statistics` returned.

    Args:
      env: an environment with the same gathering wrappers.
      statistics: by name of the wrapper.
      frozen: whether they stay as they are from now on, as evaluation wants it.

    Raises:
      UserError: statistics that are missing, or of other observations.
    """
    for name, wrapper in _gathering(env).items():
        if name not in statistics:
            raise UserError(
                f"wrapper {name}: there are no statistics of it; given: {sorted(statistics)}."
            )
        wrapper.load_statistics(statistics[name], frozen)


def freeze_statistics(env: Env) -> None:
    """Let statistics stay as they are from now on."""
    load_statistics(env, wrapper_statistics(env), frozen=True)


def _layers(env: Env) -> Iterator[Any]:
    """Yield the wrappers, outermost first, and then the environment itself."""
    while isinstance(env, VectorWrapper):
        yield env
        env = env.env
    yield env


def _gathering(env: Env) -> dict[str, Any]:
    """Return the wrappers with statistics, innermost first; a second of a name is numbered."""
    found: dict[str, Any] = {}
    for layer in reversed([*_layers(env)]):
        if hasattr(layer, "statistics") and hasattr(layer, "load_statistics"):
            same = sum(name.partition("#")[0] == layer.name for name in found)
            found[f"{layer.name}#{same + 1}" if same else layer.name] = layer
    return found


def _tells(layer: Any) -> bool:
    return hasattr(layer, "get_state") and hasattr(layer, "set_state")
