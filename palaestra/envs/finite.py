"""Numbers that are not finite in what environments return."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from palaestra.envs.trees import Tree


def not_finite(observation: Tree, reward: np.ndarray) -> np.ndarray | None:
    """Return the rows whose observation or reward is not finite, bool `[N]`; None without any."""
    bad: np.ndarray | None = None
    if not np.isfinite(reward).all():
        bad = ~np.isfinite(reward)
    for leaf in _arrays(observation):
        if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
            rows = ~np.isfinite(leaf).reshape(len(leaf), -1).all(1)
            bad = rows if bad is None else bad | rows
    return bad


def has_floats(observation: Tree) -> bool:
    """Whether there is anything in an observation that could be infinite or not a number."""
    return any(leaf.dtype.kind == "f" for leaf in _arrays(observation))


def describe_fault(row: int, observation: Tree, reward: np.ndarray | None = None) -> str:
    """Return what is not finite in one row, e.g. "its reward is nan"."""
    if reward is not None and not np.isfinite(reward[row]):
        return f"its reward is {reward[row]}"
    for name, leaf in _leaves(observation, "observation"):
        if leaf.dtype.kind == "f" and not np.isfinite(leaf[row]).all():
            value = leaf[row].ravel()[~np.isfinite(leaf[row].ravel())][0]
            return f"its {name} holds {value}"
    return "it is not finite"


def _arrays(tree: Any) -> Iterator[np.ndarray]:
    if isinstance(tree, dict):
        for part in tree.values():
            yield from _arrays(part)
    else:
        yield np.asarray(tree)


def _leaves(tree: Any, name: str) -> list[tuple[str, np.ndarray]]:
    if isinstance(tree, dict):
        return [leaf for key, part in tree.items() for leaf in _leaves(part, f"{name}[{key!r}]")]
    return [(name, np.asarray(tree))]
