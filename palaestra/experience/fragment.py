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
    """Decisions of N environments, packed: row n holds its first `length[n]` entries of T at most.

    Entry t of row n saw `observation[t, n]`, chose `action[t, n]` and was paid `reward[t, n]` over
    `duration[t, n]` environment steps. What follows it is entry t + 1; `final_*` where it ended an
    episode; `next_*` after the row's last entry. An action that is still running when the
    fragment ends is the first entry of the next one. Entries at and after `length[n]` are padding
    and mean nothing. Leaves may be arrays of strings.
    """

    observation: Tree
    """`[T, N, ...]`, what the actor saw before acting."""
    action: np.ndarray
    """`[T, N, ...]`."""
    reward: np.ndarray
    """float32 `[T, N]`, discounted within an action by whoever prolongs it."""
    terminated: np.ndarray
    """bool `[T, N]`: the episode ended by its own rules; nothing is to be bootstrapped."""
    truncated: np.ndarray
    """bool `[T, N]`: the episode was cut; bootstrap from the true final observation."""
    reset: np.ndarray
    """bool `[T, N]`: the entry is the first of an episode."""
    duration: np.ndarray
    """int32 `[T, N]`: environment steps that the action took."""
    length: np.ndarray
    """int64 `[N]`: entries of each row."""
    state: Any
    """The actor's state before each row's first entry (batch of N)."""
    extras: dict[str, np.ndarray] = field(default_factory=dict)
    """What the actor noted at each decision, `[T, N, ...]`: log-probability, value, ..."""
    info: dict[str, np.ndarray] = field(default_factory=dict)
    """What the environment told at the end of each action, by the names the agent asks for."""
    next_observation: Tree | None = None
    """`[N, ...]`, the observation after each row's last entry."""
    next_extras: dict[str, np.ndarray] = field(default_factory=dict)
    """What the actor's `look_ahead` says of `next_observation`, `[N, ...]`."""
    final_index: tuple[np.ndarray, np.ndarray] = (np.empty(0, np.int64), np.empty(0, np.int64))
    """(t, n) of each entry that ended an episode, M of them."""
    final_observation: Tree | None = None
    """`[M, ...]`, the true final observations of those episodes; None without any."""
    final_extras: dict[str, np.ndarray] = field(default_factory=dict)
    """What `look_ahead` says of the observations at which episodes were cut, `[M, ...]`."""
    version: int = 0
    """Version of the weights that acted."""

    @property
    def valid(self) -> np.ndarray:
        """Return bool `[T, N]`: false where an entry is padding."""
        return np.arange(len(self.reward))[:, None] < self.length

    @property
    def decisions(self) -> int:
        """Number of entries."""
        return int(self.length.sum())

    @property
    def env_steps(self) -> int:
        """Environment steps of all entries."""
        return int(self.duration[self.valid].sum())
