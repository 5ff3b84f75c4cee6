"""What a report reads of a run: a record is taken down into plain data that can be drawn."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from palaestra.errors import UserError

Row = dict[str, Any]


@dataclass(frozen=True)
class Evaluated:
    """One agent on one suite: the content of a `summary.json`."""

    suite: str
    step: int
    agent: str
    summary: Row


class Record(Protocol):
    """The record of a run, as `palaestra.runs.store.record.RunRecord` is one."""

    path: Path
    manifest: Row

    @property
    def id(self) -> str:
        """The run's id."""

    @property
    def agent(self) -> str:
        """What the trained agent is called in tables."""

    @property
    def status(self) -> str:
        """How the run stands now."""

    @property
    def steps(self) -> int:
        """Agent steps taken."""

    @property
    def config(self) -> Row:
        """The configuration as it is written."""

    @property
    def notices(self) -> list[str]:
        """What a reader of the lines should know."""

    def metrics(self) -> Iterable[Row]:
        """Yield the lines of metrics."""

    def episodes(self) -> Iterable[Row]:
        """Yield the lines of training episodes."""

    def evaluations(self) -> list[Evaluated]:
        """Return each evaluation of each agent."""


@dataclass(frozen=True)
class Run:
    """What is known about one run."""

    name: str
    config: Row
    manifest: Row
    metrics: list[Row] = field(default_factory=list)
    episodes: list[Row] = field(default_factory=list)
    evaluated: list[Evaluated] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    agent: str = ""
    """What the trained agent is called in tables."""
    status: str = ""
    """How the run stands, as succeeded; an empty string where that is not known."""
    steps: int = 0
    """Agent steps taken so far."""

    @property
    def reason(self) -> str:
        """Why the last attempt ended, where that is not its status; one line."""
        attempts = self.manifest.get("attempts") or [{}]
        reason = str(attempts[-1].get("reason") or "")
        return "" if reason == self.status else reason.strip().partition("\n")[0]

    @property
    def seed(self) -> int | None:
        """The user's seed."""
        return self.config.get("seed")

    @property
    def experiment(self) -> str:
        """What the run is called whatever its seed."""
        return str(self.manifest.get("experiment") or self.config.get("experiment") or self.name)

    @property
    def env_id(self) -> str:
        """The id of the training environment, or an empty string."""
        return _name_of(self.manifest.get("env")) or _name_of(self.config.get("env"))

    @property
    def agent_name(self) -> str:
        """The learning rule, or an empty string."""
        return _name_of(self.config.get("agent"))

    @property
    def policy_name(self) -> str:
        """The policy, or an empty string for rules without one."""
        return _name_of(self.config.get("policy"))

    @property
    def learner(self) -> str:
        """The trained agent's label under its former name."""
        return self.agent

    @property
    def num_episodes(self) -> int:
        """Training episodes that ended so far."""
        return sum(int(row.get("count", 1)) for row in self.episodes)

    def last_evaluated(self) -> list[Evaluated]:
        """Return each agent of each suite at the last step at which the suite was played."""
        last: dict[str, int] = {}
        for item in self.evaluated:
            last[item.suite] = max(item.step, last.get(item.suite, 0))
        return [item for item in self.evaluated if item.step == last[item.suite]]


def read_runs(records: Sequence[Record]) -> list[Run]:
    """Read several runs, in the order given.

    Raises:
      UserError: no run, the same one twice, or a broken file.
    """
    if not records:
        raise UserError("report: no run was given; name one or more.")
    resolved = [record.path.resolve() for record in records]
    for folder in resolved:
        if resolved.count(folder) > 1:
            raise UserError(f"report: {folder.name!r} is given twice; name each run once.")
    return [read_run(record) for record in records]


def read_run(record: Record) -> Run:
    """Read one run.

    Raises:
      UserError: a file of it cannot be read.
    """
    return Run(
        name=record.id,
        config=record.config,
        manifest=record.manifest,
        metrics=list(record.metrics()),
        episodes=[_averaged(row) for row in record.episodes()],
        evaluated=record.evaluations(),
        notices=record.notices,
        agent=record.agent,
        status=record.status,
        steps=record.steps,
    )


def _averaged(row: Row) -> Row:
    """Return a line of episodes with its columns averaged and their number as `count`."""
    columns = {key: value for key, value in row.items() if isinstance(value, list)}
    means = {key: sum(value) / len(value) for key, value in columns.items() if value}
    count = max((len(value) for value in columns.values()), default=1)
    return {**row, **dict.fromkeys(columns), **means, "count": count}


def _name_of(thing: Any) -> str:
    """Return the name in `"ucb"`, `{"name": "ucb", ...}` or `{"id": "Env-v0", ...}`."""
    if isinstance(thing, dict):
        thing = thing.get("name") or thing.get("id") or ""
    return str(thing or "")
