"""Fragment: what a rollout hands to a learner."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Tree = np.ndarray | dict[str, Any]
"""An array, or a dict of trees (Dict observations)."""


def map_tree(function: Any, *trees: Tree) -> Any:
    """Apply `function` to the arrays at each leaf of equally shaped trees."""
    if isinstance(trees[0], dict):
        return {key: map_tree(function, *(tree[key] for tree in trees)) for key in trees[0]}
    return function(*trees)


@dataclass
class Fragment:
    """T consecutive steps of N environments, time-major; one type for pixels, bandits and text.

    Step t of row n reads `observation[t, n]`, took `action[t, n]` and was paid `reward[t, n]`.
    A fragment's end is not an episode's end: `last_*` describe what follows its last step.
    """

    observation: Tree
    """`[T, N, ...]`, what the actor saw before acting."""
    action: np.ndarray
    """`[T, N, ...]`."""
    reward: np.ndarray
    """float32 `[T, N]`."""
    terminated: np.ndarray
    """bool `[T, N]`: the episode ended by its own rules; nothing is to be bootstrapped."""
    truncated: np.ndarray
    """bool `[T, N]`: the episode was cut; bootstrap from the true final observation."""
    reset: np.ndarray
    """bool `[T, N]`: step t is the first of an episode."""
    valid: np.ndarray
    """bool `[T, N]`: false where a next-step autoreset ignored the action; no transition."""
    duration: np.ndarray
    """int32 `[T, N]`: environment steps that the action took."""
    state: Any
    """The actor's state before the first step (batch of N)."""
    extras: dict[str, np.ndarray] = field(default_factory=dict)
    """What the actor noted at each step, `[T, N, ...]`: log-probability, value, ..."""
    last_observation: Tree | None = None
    """`[N, ...]`, the observation after the last step."""
    last_extras: dict[str, np.ndarray] = field(default_factory=dict)
    """The actor's extras at `last_observation`, `[N, ...]`."""
    final_index: tuple[np.ndarray, np.ndarray] = (np.empty(0, np.int64), np.empty(0, np.int64))
    """(t, n) of each step that ended an episode, M of them."""
    final_observation: Tree | None = None
    """`[M, ...]`, the true final observations of those episodes; None without any."""
    final_extras: dict[str, np.ndarray] = field(default_factory=dict)
    """The actor's extras at the true final observations, `[M, ...]`."""
    version: int = 0
    """Version of the weights that acted."""

    @property
    def steps(self) -> int:
        """Number of transitions."""
        return int(self.valid.sum())
