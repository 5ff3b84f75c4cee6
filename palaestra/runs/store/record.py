"""RunRecord: the one reader of a run folder."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from palaestra.errors import UserError
from palaestra.runs.config import EvaluationConfig, RunConfig, agent_label, parse_yaml
from palaestra.runs.report.read import Evaluated, Row, Run, averaged
from palaestra.runs.report.shown import record as shown_by
from palaestra.runs.report.shown import shows
from palaestra.runs.store.folder import LOGS, RUNS, RunFolder
from palaestra.runs.store.lock import owner_of

_EXPECTED = (
    "a run folder as `palaestra train` writes it, with config.yaml and manifest.json "
    "(and metrics.jsonl, episodes.jsonl, eval/ as far as the run got)"
)
_TAIL_BYTES = 65536


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
      status: how it stands now.
      agent_steps: steps taken.
      total_steps: steps to take.
      rate: agent steps per second at the last line of metrics; None before the first.
      started, ended: times in UTC, as the manifest has them.
    """

    status: str
    agent_steps: int
    total_steps: int
    rate: float | None
    started: str | None
    ended: str | None

    def __str__(self) -> str:
        rate = f", {self.rate:,.0f}/s" if self.rate is not None else ""
        share = self.agent_steps / self.total_steps
        return f"{self.agent_steps:,}/{self.total_steps:,} steps ({share:.0%}){rate}"


class RunRecord:
    """What the folder of a run says: read, never written, whatever plug-ins the run needs.

    Manifest and configuration are read once; the rest is read when it is asked for. Whoever
    watches a run makes a new record at each look.

    Args:
      path: the folder.

    Attributes:
      manifest: identity and history of the run, as training wrote it.

    Raises:
      UserError: the folder is no run, or its manifest is none.
    """

    def __init__(self, path: Path) -> None:
        for name in ("config.yaml", "manifest.json"):
            if not (path / name).is_file():
                what = "has no " + name if path.is_dir() else "is not a folder"
                raise UserError(f"{path}: not a run: it {what}; expected {_EXPECTED}.")
        self.path = path
        self.manifest = _read_json(path / "manifest.json")

    @classmethod
    def open(cls, run: str | Path, root: Path = RUNS) -> Self:
        """Return the record of the run named by its id or path.

        Raises:
          UserError: there is no such run (the nearest ids are listed), or its manifest is none.
        """
        return cls(RunFolder.open(run, root).path)

    @staticmethod
    def names(root: Path = RUNS) -> list[str]:
        """Return the names of all run folders in a folder of runs."""
        return sorted(file.parent.name for file in root.glob("*/manifest.json"))

    @cached_property
    def config(self) -> Row:
        """The configuration as it is written.

        Raises:
          UserError: the file is not that of a run.
        """
        path = self.path / "config.yaml"
        config = parse_yaml(path.read_text(encoding="utf-8", errors="replace"), str(path))
        if not isinstance(config, dict):
            raise UserError(f"{path}: not the configuration of a run: {config!r:.60}.")
        return config

    @property
    def id(self) -> str:
        """The run's id."""
        return str(self.manifest.get("run_id") or self.path.resolve().name)

    @cached_property
    def agent(self) -> str:
        """What the trained agent is called in tables; runs of older versions do not say it."""
        if known := self.manifest.get("agent"):
            return str(known)
        return agent_label(self.config.get("agent") or {"name": ""}, self.config.get("policy"))

    @property
    def owner(self) -> dict[str, Any] | None:
        """Host, pid and start of the live process that writes the run, or None."""
        return owner_of(self.path)

    @property
    def status(self) -> str:
        """How the run stands now: "killed" where it says running and no process lives."""
        status = str(self.manifest.get("status") or "")
        return "killed" if status == "running" and self.owner is None else status

    @property
    def steps(self) -> int:
        """Agent steps taken: those of the manifest where an attempt has ended, else of metrics."""
        done, last = self.manifest.get("agent_steps"), self.last_metrics().get("agent_steps")
        running = self.manifest.get("status") == "running"
        return int((last if running else done) or last or done or 0)

    @property
    def progress(self) -> Progress:
        """How far the run is.

        Raises:
          UserError: the configuration does not say how far it is to go.
        """
        total = self.config.get("total_steps")
        if not isinstance(total, int) or total < 1:
            path = self.path / "config.yaml"
            raise UserError(f"{path}: not the configuration of a run: total_steps is {total!r}.")
        return Progress(
            status=self.status,
            agent_steps=self.steps,
            total_steps=total,
            rate=self.last_metrics().get("time/agent_steps_per_s"),
            started=self.manifest.get("started"),
            ended=self.manifest.get("ended"),
        )

    @property
    def submitted(self) -> bool:
        """Whether the last attempt was a job on a cluster."""
        return any("submission_id" in attempt for attempt in self.manifest.get("attempts", [])[-1:])

    def metrics(self) -> Iterator[Row]:
        """Yield the lines of metrics; a last one that was cut off in writing is left out.

        Raises:
          UserError: another line is broken; file and line are named.
        """
        return _lines(self.path / "metrics.jsonl")

    def episodes(self) -> Iterator[Row]:
        """Yield the lines of training episodes, each with columns of one value an episode.

        Raises:
          UserError: a line is broken, as for `metrics`.
        """
        return _lines(self.path / "episodes.jsonl")

    def last_metrics(self) -> Row:
        """Return the last whole line of metrics, without reading the others; {} if there is none.

        A line that is broken counts as none: whoever looks at a live run waits for the next one.
        """
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return {}
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = file.read().rpartition(b"\n")[0]
        try:
            row = json.loads(lines.rpartition(b"\n")[2])
        except ValueError:  # none yet, or what a power cut left
            return {}
        return row if isinstance(row, dict) else {}

    @property
    def notices(self) -> list[str]:
        """What a reader of the lines should know."""
        cut = [name for name in LOGS if _is_cut(self.path / name)]
        return [f"{name}: the last line was cut off in writing; it is left out." for name in cut]

    def evaluations(self) -> list[Evaluated]:
        """Return each evaluation of each agent, by suite and step.

        Raises:
          UserError: a broken file.
        """
        place = self.path / "eval"
        found = [
            _evaluated(file, file.relative_to(place).parts)
            for file in sorted(place.glob("*-*/**/summary.json"))
            if not any(part.startswith(".") for part in file.relative_to(place).parts)
        ]
        return sorted(found, key=lambda item: (item.suite, item.step))

    def evaluation_folder(self, suite: str, step: int, agent: str) -> Path:
        """Return where an evaluation is stored; names with a slash are one folder each."""
        return self.path / "eval" / f"{safe(suite)}-{step}" / safe(agent)

    def is_trained(self, config: RunConfig) -> bool:
        """Whether the run came to its end, by steps or by a rule of the configuration."""
        stop = config.model_dump(mode="json").get("stop")
        ended = bool(self.manifest.get("ended_by")) and self.config.get("stop") == stop
        return self.status == "succeeded" and (self.steps >= config.total_steps or ended)

    def is_evaluated(self, wanted: EvaluationConfig) -> bool:
        """Whether the agent as it is now, and each baseline, was evaluated as wanted."""
        done = {e.agent: e.summary for e in self.evaluations() if self._answers(e, wanted)}
        own = done.get(self.agent, {})
        return {self.agent, *wanted.baselines} <= done.keys() and (
            own.get("mode", wanted.mode) == wanted.mode
            and own.get("config_hash") in (None, self.manifest.get("config_hash"))
        )

    def _answers(self, item: Evaluated, wanted: EvaluationConfig) -> bool:
        tasks = item.summary.get("tasks", [])
        played = {task.get("id") for task in tasks} | item.summary.get("not_applicable", {}).keys()
        return (
            (item.suite, item.step) == (wanted.suite_name, self.steps)
            and item.summary.get("seeds") == list(range(wanted.seeds))
            and all(wanted.episodes in (None, task.get("episodes")) for task in tasks)
            and all(played & {name, f"{wanted.suite_name}/{name}"} for name in wanted.tasks)
        )

    def is_complete(self, config: RunConfig) -> bool:
        """Whether nothing is left to do of what a configuration asks: train, evaluate, report."""
        wanted = config.evaluation
        return self.is_trained(config) and (
            wanted is None or (self.is_evaluated(wanted) and self.is_reported())
        )

    def is_reported(self) -> bool:
        """Whether the report in the folder is whole and shows the run as it is now."""
        return shows(self.path / "report.html") == shown_by([self.run(lines=False)])

    def run(self, *, lines: bool = True) -> Run:
        """Return all of it as plain data, which reports take; without the lines on request.

        Raises:
          UserError: a file of the run cannot be read.
        """
        return Run(
            name=self.id,
            config=self.config,
            manifest=self.manifest,
            metrics=list(self.metrics()) if lines else [],
            episodes=[averaged(row) for row in self.episodes()] if lines else [],
            evaluated=self.evaluations(),
            notices=self.notices,
            agent=self.agent,
            status=self.status,
            steps=self.steps,
            path=self.path,
        )

    def artifacts(self) -> list[tuple[int, str, Path]]:
        """Return agent steps, name and file of what the learner left in `artifacts/<steps>/`."""
        return sorted(
            (int(file.parent.name), file.stem, file)
            for file in self.path.glob("artifacts/*/*")
            if file.parent.name.isdigit() and file.is_file() and not file.name.startswith(".")
        )


def safe(name: str) -> str:
    """Return a name as that of one folder: `sb3/ppo` becomes `sb3-ppo`."""
    return re.sub(r"[/\\\0]|^\.+", "-", name)


def _lines(path: Path) -> Iterator[Row]:
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):  # its writer was killed, or is writing it now
                return
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}, line {number}: not JSON ({error}).") from None
            steps = row.get("agent_steps") if isinstance(row, dict) else None
            if not isinstance(steps, int):
                raise UserError(
                    f"{path}, line {number}: agent_steps is {steps!r}; expected a JSON object with "
                    "a whole number of this name in every line."
                )
            yield row


def _is_cut(path: Path) -> bool:
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read() != b"\n"


def _evaluated(path: Path, place: tuple[str, ...]) -> Evaluated:
    """Read `<suite>-<step>/[<agent>/]summary.json`; older summaries do not say all of it."""
    suite, _, step = place[0].rpartition("-")
    summary = _read_json(path)
    if not step.isdigit():
        raise UserError(f"{path.parent}: expected eval/<suite>-<step>/, got {place[0]!r}.")
    agent = summary.get("agent") or (place[1] if len(place) > 2 else "agent")
    return Evaluated(str(summary.get("suite") or suite), int(step), str(agent), summary)


def _read_json(path: Path) -> Row:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        raise UserError(f"{path}, line {line}: not JSON ({error}).") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected a mapping of names to values, got {data!r:.60}.")
    return data
