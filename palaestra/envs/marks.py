"""Marks of what objects keep: two that keep the same plain values have the same mark."""

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np

_OF_GYMNASIUM = {"env", "_cached_spec", "_action_space", "_observation_space", "_metadata"}
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def marks(wrapper: gymnasium.Env[Any, Any]) -> str:
    """Return a mark of what a wrapper keeps itself, what it wraps and its spaces left out.

    Numbers, texts, arrays, generators, and objects and containers of them count; functions and
    classes do not.
    """
    digest = hashlib.sha256()
    own = {key: x for key, x in vars(wrapper).items() if key not in _OF_GYMNASIUM}
    for part in _parts(own, set()):
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    return digest.hexdigest()


def _parts(value: Any, above: set[int]) -> Iterator[str | bytes]:
    """Yield what a value consists of; `above` are the objects that hold it."""
    if isinstance(value, _PLAIN):
        yield f"{type(value).__name__} {value!r}"
    elif isinstance(value, np.ndarray | np.generic) and value.dtype.kind != "O":
        yield f"{value.dtype} {value.shape}"
        yield value.tobytes()
    elif isinstance(value, np.random.Generator):
        yield from _parts(value.bit_generator.state, above)
    elif id(value) in above or isinstance(value, gymnasium.Space | gymnasium.Env | type):
        yield type(value).__name__
    elif isinstance(value, Mapping):
        for key in sorted(value, key=repr):
            yield repr(key)
            yield from _parts(value[key], above | {id(value)})
    elif isinstance(value, set | frozenset):
        yield repr(sorted(value, key=repr))
    elif isinstance(value, list | tuple | deque | np.ndarray):
        yield f"{type(value).__name__} {len(value)}"
        for inner in value:
            yield from _parts(inner, above | {id(value)})
    elif hasattr(value, "__dict__") and not callable(value):
        yield type(value).__name__
        yield from _parts(vars(value), above | {id(value)})
    else:
        yield type(value).__name__
