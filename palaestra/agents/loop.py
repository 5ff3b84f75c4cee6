"""What one round of training hands to whoever records it, and agents that run it by themselves.

A run is a sequence of rounds: collect some experience, learn from it. Palaestra's own agents learn
from fragments that rollouts bring; an algorithm of another library collects by itself and is
adapted here, as a `Loop`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from palaestra.experience.artifact import Artifact
from palaestra.experience.weights import Weights


@dataclass
class EpisodeBatch:
    """Training episodes that ended within one round, as columns of equal length."""

    env: np.ndarray
    """Global environment index."""
    returns: np.ndarray
    """Raw, unclipped, undiscounted return."""
    length: np.ndarray
    """Environment steps."""
    sums: dict[str, np.ndarray] = field(default_factory=dict)
    """Step infos summed over the episode, as the environment's `episode_infos` name them."""


def join_episodes(batches: Sequence[EpisodeBatch], sum_names: Sequence[str] = ()) -> EpisodeBatch:
    """Return several batches as one; `sum_names` names the sums where there is no batch."""
    if not batches:
        none = np.zeros(0)
        whole = none.astype(int)
        return EpisodeBatch(whole, none, whole, dict.fromkeys(sum_names, none))
    return EpisodeBatch(
        np.concatenate([b.env for b in batches]),
        np.concatenate([b.returns for b in batches]),
        np.concatenate([b.length for b in batches]),
        {name: np.concatenate([b.sums[name] for b in batches]) for name in batches[0].sums},
    )


@dataclass
class Iteration:
    """What happened in one round of collecting and learning."""

    agent_steps: int
    """Environment steps that agents took, over all environments."""
    decisions: int
    """Actions chosen that have ended; fewer than agent steps where actions last."""
    metrics: Mapping[str, float]
    """What the learner says of its update, e.g. "train/value_loss"."""
    episodes: EpisodeBatch
    collect_s: float = 0.0
    learn_s: float = 0.0


@dataclass(frozen=True)
class TrainingEnvs:
    """The environments that an agent with a loop of its own trains on."""

    env_id: str
    num_envs: int
    wrappers: tuple[str | Mapping[str, Any], ...]
    """Wrappers by name, or `{"name": ..., option: ...}`, innermost first."""
    options: Mapping[str, Any]
    """Keyword arguments of the environment."""
    steps: int
    """Steps of every environment in one round, where the algorithm leaves it open."""


class Loop(ABC):
    """Something that trains round by round, can be stopped between two rounds and resumed.

    `load_state_dict` of a loop made from the same configuration gives the same further rounds as
    the loop whose `state_dict` it was.
    """

    frames_per_step: int = 1
    """Emulator frames of one environment step."""

    restores_environments: bool = True
    """Whether `state_dict` holds where the environments are; else a checkpoint resets them."""

    exact: bool = True
    """Whether a resumed loop gives the same further rounds; asynchronous rollouts do not."""

    @abstractmethod
    def advance(self) -> Iteration:
        """Collect and learn once."""

    @abstractmethod
    def weights(self) -> Weights:
        """Return what an actor needs to act as the learner now would, as arrays of its own."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return everything that decides the next rounds.

        Nested dicts (keys are strings) and lists of arrays, tensors, numbers and strings; a
        checkpoint stores it without pickle. Arrays may be views: whoever keeps them copies them.
        """

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken."""

    def artifacts(self) -> dict[str, Artifact]:
        """Return matrices, tables and texts to keep with a checkpoint."""
        return {}

    def wrapper_statistics(self) -> dict[str, Any]:
        """Return what normalising wrappers have gathered, by wrapper and leaf."""
        return {}

    def reset_environments(self) -> None:
        """Cut every episode short; called before a checkpoint that cannot hold environments."""

    @property
    def failures(self) -> list[dict[str, Any]]:
        """One record for each restart of a worker: worker, reason, traceback."""
        return []

    def close(self) -> None:
        """Close the environments and end the workers."""
