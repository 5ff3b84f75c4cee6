"""Observations as trees: arrays at the leaves of dicts and tuples, rows first.

Texts are arrays of the type object that hold Python strings. NumPy's fixed width would cut a longer
string off in silence when it is written into an array, and its StringDType is not in NumPy 1.
"""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import concatenate, create_empty_array

Tree = Any
"""An array, or a dict or tuple of trees."""


def map_tree(function: Callable[..., Any], *trees: Tree) -> Any:
    """Apply `function` to the arrays at each leaf of equally shaped trees."""
    first = trees[0]
    if isinstance(first, dict):
        return {key: map_tree(function, *(tree[key] for tree in trees)) for key in first}
    if isinstance(first, tuple):
        return tuple(map_tree(function, *parts) for parts in zip(*trees, strict=True))
    return function(*trees)


def stack_rows(rows: Sequence[Tree]) -> Tree:
    """Return the observations of single rows as one tree, `[M, ...]`."""
    return map_tree(lambda *leaves: _stack(leaves), *rows)


def has_text(space: gymnasium.Space[Any]) -> bool:
    """Whether there are texts among the leaves of a space."""
    if isinstance(space, spaces.Dict):
        return any(map(has_text, space.spaces.values()))
    if isinstance(space, spaces.Tuple):
        return any(map(has_text, space.spaces))
    return isinstance(space, spaces.Text)


def join_rows(space: gymnasium.Space[Any], rows: Sequence[Any]) -> Tree:
    """Return what N environments with this observation space have shown, in new arrays.

    Texts become arrays of strings; all else is as Gymnasium's own vector environments give it.
    """
    if isinstance(space, spaces.Text):
        return text_array(rows)
    if isinstance(space, spaces.Dict) and has_text(space):
        return {k: join_rows(s, [row[k] for row in rows]) for k, s in space.spaces.items()}
    if isinstance(space, spaces.Tuple) and has_text(space):
        return tuple(join_rows(s, [row[i] for row in rows]) for i, s in enumerate(space.spaces))
    return concatenate(space, rows, create_empty_array(space, len(rows), fn=np.zeros))  # type: ignore[arg-type]


def texts_as_arrays(space: gymnasium.Space[Any], observation: Any) -> Tree:
    """Return a batched observation with its tuples of strings as arrays of strings."""
    if isinstance(space, spaces.Text):
        return text_array(observation)
    if isinstance(space, spaces.Dict):
        return {k: texts_as_arrays(s, observation[k]) for k, s in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        parts = zip(space.spaces, observation, strict=True)
        return tuple(texts_as_arrays(s, part) for s, part in parts)
    return observation


def text_array(texts: Sequence[str]) -> np.ndarray:
    """Return strings as an array of Python strings, object `[N]`."""
    array = np.empty(len(texts), object)
    array[:] = list(texts)
    return array


def equal_trees(a: Any, b: Any) -> bool:
    """Whether two trees hold the same values, bit for bit; a list is as good as a tuple."""
    if isinstance(a, dict):
        return (
            isinstance(b, dict) and a.keys() == b.keys() and all(equal_trees(a[k], b[k]) for k in a)
        )
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(equal_trees, a, b))
    if isinstance(a, np.ndarray):
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            return False
        if a.dtype == object:
            return equal_trees(a.tolist(), b.tolist())
        same: bool = a.tobytes() == b.tobytes()
        return same
    equal: bool = a == b or (a != a and b != b)  # not a number is equal to itself here
    return equal


def _stack(leaves: Sequence[Any]) -> np.ndarray:
    if isinstance(leaves[0], str):
        return text_array(leaves)
    return np.stack(leaves)
