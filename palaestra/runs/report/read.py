"""Read run folders into plain data; only manifest and configuration have to be there."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from palaestra.errors import UserError

Row = dict[str, Any]

_EXPECTED = (
    "a run folder as `palaestra train` writes it, with config.yaml and manifest.json "
    "(and metrics.jsonl, episodes.jsonl, eval/ as far as the run got)"
)


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

    @property
    def status(self) -> str:
        """How the run stands, as succeeded; an empty string where the manifest does not say."""
        return str(self.manifest.get("status") or "")

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
        """What the trained agent is called in tables: its rule and its policy."""
        return "-".join(name for name in (self.agent_name, self.policy_name) if name)

    @property
    def steps(self) -> int:
        """Agent steps taken so far."""
        last = self.metrics[-1]["agent_steps"] if self.metrics else 0
        return int(self.manifest.get("agent_steps") or last)

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


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read several run folders, in the order given.

    Raises:
      UserError: no folder, one that is no run, the same one twice, or a broken file.
    """
    if not folders:
        raise UserError(f"report: no run was given; expected {_EXPECTED}.")
    resolved = [folder.resolve() for folder in folders]
    for folder in resolved:
        if resolved.count(folder) > 1:
            raise UserError(f"report: {folder.name!r} is given twice; name each run once.")
    return [read_run(folder) for folder in folders]


def read_run(folder: Path) -> Run:
    """Read one run folder.

    Raises:
      UserError: the folder is no run, or a file in it cannot be read.
    """
    for name in ("config.yaml", "manifest.json"):
        if not (folder / name).is_file():
            what = "has no " + name if folder.is_dir() else "is not a folder"
            raise UserError(f"{folder}: not a run: it {what}; expected {_EXPECTED}.")
    notices: list[str] = []
    manifest = _mapping(folder / "manifest.json", _read_json(folder / "manifest.json"))
    return Run(
        name=str(manifest.get("run_id") or folder.resolve().name),
        config=_mapping(folder / "config.yaml", _read_yaml(folder / "config.yaml")),
        manifest=manifest,
        metrics=_with_steps(folder / "metrics.jsonl", notices),
        episodes=[_averaged(row) for row in _with_steps(folder / "episodes.jsonl", notices)],
        evaluated=_read_evaluated(folder / "eval"),
        notices=notices,
    )


def _read_evaluated(folder: Path) -> list[Evaluated]:
    """Read `eval/<suite>-<step>/[<agent>/]summary.json`, oldest step first."""
    found = []
    for path in sorted(folder.glob("*-*/**/summary.json")):
        place = path.relative_to(folder).parts
        suite, _, step = place[0].rpartition("-")
        if not step.isdigit():
            raise UserError(f"{path.parent}: expected eval/<suite>-<step>/, got {place[0]!r}.")
        summary = _mapping(path, _read_json(path))
        agent = str(summary.get("agent") or (place[1] if len(place) > 2 else "agent"))
        found.append(Evaluated(suite, int(step), agent, summary))
    return sorted(found, key=lambda item: (item.suite, item.step))


def read_lines(path: Path, notices: list[str]) -> list[Row]:
    """Read a file of one JSON object a line; a missing file has no lines.

    A last line without its newline is what a killed writer leaves: it is left out and noted.

    Raises:
      UserError: any other line is broken; file and line number are named.
    """
    if not path.is_file():
        return []
    rows = []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                notices.append(
                    f"{path.name}, line {number}, was cut off in writing; it is left out."
                )
                continue
            raise UserError(
                f"{path}, line {number}: not JSON ({error.msg}); expected one object a line."
            ) from None
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: expected a JSON object, got {line[:60]!r}.")
        rows.append(row)
    return rows


def _with_steps(path: Path, notices: list[str]) -> list[Row]:
    rows = read_lines(path, notices)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get("agent_steps"), int | float):
            raise UserError(
                f"{path}, entry {number}: agent_steps is {row.get('agent_steps')!r}; "
                "expected a number in every line."
            )
    return rows


def _averaged(row: Row) -> Row:
    """Return a line of episodes with its columns averaged and their number as `count`."""
    columns = {key: value for key, value in row.items() if isinstance(value, list)}
    means = {key: sum(value) / len(value) for key, value in columns.items() if value}
    count = max((len(value) for value in columns.values()), default=1)
    return {**row, **dict.fromkeys(columns), **means, "count": count}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        line = getattr(error, "lineno", 1)
        raise UserError(f"{path}, line {line}: not JSON ({error}).") from None


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise UserError(f"{path}, line {line}: not YAML ({error}).") from None


def _mapping(path: Path, data: Any) -> Row:
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected a mapping of names to values, got {data!r:.60}.")
    return data


def _name_of(thing: Any) -> str:
    """Return the name in `"ucb"`, `{"name": "ucb", ...}` or `{"id": "Env-v0", ...}`."""
    if isinstance(thing, dict):
        thing = thing.get("name") or thing.get("id") or ""
    return str(thing or "")
