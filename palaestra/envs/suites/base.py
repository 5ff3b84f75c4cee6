"""What a suite is: tasks, and what is known about each.

A suite says which environments are played, how many episodes, in which policy mode, and between
which two returns the score lies. Whatever changes the meaning of a number raises the version.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from palaestra.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Task:
    """One environment of a suite and what is known about it."""

    id: str
    """`suite/task`, unique and stable."""
    env_id: str
    env_kwargs: dict[str, Any]
    low: float
    """Return of uniform play, or in memory tasks of the best play without memory; score 0.
    Not a number where no bounds are known; the task then has no score."""
    high: float
    """Return of the oracle, or of the best response where it is known; score 1."""
    source: str
    """Where `low`, `high` and `reference` come from."""
    episodes: int = 64
    """Episodes for each seed."""
    policy_mode: Literal["sample", "greedy"] = "sample"
    tags: tuple[str, ...] = ()
    wrappers: tuple[str | Mapping[str, Any], ...] = ()
    reference: dict[str, float] = field(default_factory=dict)
    """Known figures as `metric/agent` -> value, e.g. `regret/random`."""

    def score(self, mean_return: float, mean_regret: float | None = None) -> float:
        """Return the score: 0 for a return of `low`, 1 for `high`.

        A task with a known regret is scored by it, 1 - regret / (high - low): the same
        expectation without the noise of the rewards.
        """
        if mean_regret is not None:
            return 1.0 - mean_regret / (self.high - self.low)
        return (mean_return - self.low) / (self.high - self.low)

    def references(self, metric: str) -> dict[str, float]:
        """Return the known figures of one metric by agent."""
        parts = [(name.split("/", 1), value) for name, value in self.reference.items()]
        return {agent: value for (of, agent), value in parts if of == metric}


@dataclass(frozen=True)
class Suite:
    """Tasks that are evaluated together."""

    name: str
    version: int
    tasks: tuple[Task, ...]
    protocol: str
    """How the tasks are played, in a sentence or two."""
    tags: tuple[str, ...] = ()
    description: str = ""

    def select(self, ids: Sequence[str] | None = None) -> tuple[Task, ...]:
        """Return the tasks with the given ids, or without any all but those tagged `extra`.

        An id may leave out the suite's name.

        Raises:
          UserError: an id that the suite does not have.
        """
        if not ids:
            return tuple(task for task in self.tasks if "extra" not in task.tags)
        known = {task.id: task for task in self.tasks}
        full = [name if name in known else f"{self.name}/{name}" for name in ids]
        for given, name in zip(ids, full, strict=True):
            if name not in known:
                raise UserError(
                    f"suite {self.name}: no task {given!r}: {did_you_mean(name, known)}"
                )
        return tuple(known[name] for name in full)
