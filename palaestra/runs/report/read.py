"""What a report knows of a run: plain data, as `RunRecord.run` takes it from the folder."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Evaluated:
    """One agent on one suite: the content of a `summary.json`."""

    suite: str
    step: int
    agent: str
    summary: Row


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
    path: Path = Path()
    """Its folder."""

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
        """The learning algorithm, or an empty string."""
        return _name_of(self.config.get("agent"))

    @property
    def policy_name(self) -> str:
        """The policy, or an empty string for agents without one."""
        return _name_of(self.config.get("policy"))

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


def averaged(row: Row) -> Row:
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
