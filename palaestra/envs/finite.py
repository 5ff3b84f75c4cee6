"""Numbers that are not finite in what environments return."""

from typing import Any

import numpy as np

from palaestra.envs.trees import Tree


def not_finite(observation: Tree, reward: np.ndarray) -> np.ndarray | None:
    """Return the rows whose observation or reward is not finite, bool `[N]`; None without any."""
    bad: np.ndarray | None = None
    if not np.isfinite(reward).all():
        bad = ~np.isfinite(reward)
    for _, leaf in _leaves(observation, "observation"):
        if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
            rows = ~np.isfinite(leaf).reshape(len(leaf), -1).all(1)
            bad = rows if bad is None else bad | rows
    return bad


def describe_fault(row: int, observation: Tree, reward: np.ndarray | None = None) -> str:
    """Return what is not finite in one row, e.g. "its reward is nan"."""
    if reward is not None and not np.isfinite(reward[row]):
        return f"its reward is {reward[row]}"
    for name, leaf in _leaves(observation, "observation"):
        if leaf.dtype.kind == "f" and not np.isfinite(leaf[row]).all():
            value = leaf[row].ravel()[~np.isfinite(leaf[row].ravel())][0]
            return f"its {name} holds {value}"
    return "it is not finite"


def _leaves(tree: Any, name: str) -> list[tuple[str, np.ndarray]]:
    if isinstance(tree, dict):
        return [leaf for key, part in tree.items() for leaf in _leaves(part, f"{name}[{key!r}]")]
    return [(name, np.asarray(tree))]
