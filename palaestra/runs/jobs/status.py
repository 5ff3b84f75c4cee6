"""What became of submitted runs: from the cluster while it answers, else from the run folder."""

import json
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from palaestra.errors import RunError, UserError, did_you_mean
from palaestra.runs.config import parse_yaml
from palaestra.runs.jobs.client import Cluster, NoAnswerError, Submission, connect
from palaestra.runs.jobs.watch import follow
from palaestra.runs.progress import say
from palaestra.runs.store.folder import RunFolder
from palaestra.runs.store.lock import owner_of

_POLL_S = 0.5
_TAIL_BYTES = 65536


@dataclass(frozen=True)
class Progress:
    """How far a run is, read from its folder.

    Attributes:
      status: that of the manifest; "killed" where it says running, but no process writes the run.
      agent_steps: steps taken, as the last line of metrics says.
      total_steps: steps to take.
      rate: agent steps per second at the last line; None before the first.
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


@dataclass(frozen=True)
class Found:
    """A run that a user named: its latest submission, its folder, or both."""

    run_id: str
    folder: Path
    cluster: Cluster | None = None
    submission: Submission | None = None

    @property
    def progress(self) -> Progress | None:
        """How far it is, where its folder can be seen."""
        return read_progress(self.folder)


def read_progress(folder: Path) -> Progress | None:
    """Return how far a run is, or None where there is no run folder to be seen.

    Raises:
      UserError: the folder's manifest or configuration is none.
    """
    if not (folder / "manifest.json").is_file():
        return None
    manifest = RunFolder.open(folder).manifest
    path = folder / "config.yaml"
    config = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    total_steps = config.get("total_steps") if isinstance(config, dict) else None
    if not isinstance(total_steps, int) or total_steps < 1:
        raise UserError(f"{path}: not the configuration of a run.")
    line = last_line(folder / "metrics.jsonl")
    return Progress(
        status=_live_status(folder, manifest["status"]),
        agent_steps=line.get("agent_steps", manifest.get("agent_steps", 0)),
        total_steps=total_steps,
        rate=line.get("time/agent_steps_per_s"),
        started=manifest.get("started"),
        ended=manifest.get("ended"),
    )


def _live_status(folder: Path, status: str) -> str:
    return "killed" if status == "running" and owner_of(folder) is None else status


def last_line(path: Path) -> dict[str, Any]:
    """Return the last whole line of a file of JSON lines; empty without one."""
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        text, newline, _ = file.read().rpartition(b"\n")
    line = text.rpartition(b"\n")[2]
    try:
        return json.loads(line) if newline else {}
    except ValueError:  # what a power cut left
        return {}


def find(name: str, address: str, storage: Path) -> Found:
    """Return the run of this run id or submission id.

    Raises:
      UserError: neither the cluster nor the runs directory knows it; near names are listed.
    """
    try:
        cluster = connect(address)
    except NoAnswerError as error:
        return _find_folder(name, storage, str(error))
    submissions = cluster.submissions()
    matching = [s for s in submissions if s.id == name] or [
        s for s in submissions if s.run_id == name
    ]
    if not matching:
        known = {s.id for s in submissions} | {s.run_id for s in submissions}
        return _find_folder(name, storage, f"the cluster at {address} does not know it", known)
    latest = max(matching, key=lambda s: s.attempt)
    return Found(latest.run_id, _folder(latest, storage), cluster, latest)


def _find_folder(name: str, storage: Path, reason: str, known: set[str] | None = None) -> Found:
    runs = {path.parent.name for path in storage.glob("*/manifest.json")}
    run_id = name if name in runs else name.rpartition("-a")[0]
    if run_id not in runs:
        raise UserError(
            f"unknown run or submission {name!r}: {did_you_mean(name, runs | (known or set()))} "
            f"Looked in {storage.absolute()}; {reason}"
        )
    say(f"from the run folder {storage / run_id}; {reason}")
    return Found(run_id, storage / run_id)


def _folder(submission: Submission, storage: Path) -> Path:
    return Path(submission.metadata.get("storage", storage)) / submission.run_id


def show_jobs(address: str, as_json: bool) -> None:
    """Print a table of all submissions, the latest last."""
    submissions = connect(address).submissions()
    rows = [_row(s, _progress_or_none(s)) for s in submissions]
    if as_json:
        print(json.dumps(rows))
        return
    if not rows:
        say(f"no run was submitted to {address} yet; see palaestra submit --help")
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("submission", "run", "status", "started", "ended", "progress", box=None)
    for row, s in zip(rows, submissions, strict=True):
        times = (_time(s.started), _time(s.ended))
        cells = (s.id, s.run_id, s.status, *times, row["progress_text"])
        table.add_row(*(escape(cell) for cell in cells))
    Console(width=None if sys.stdout.isatty() else 250).print(table)


def _progress_or_none(submission: Submission) -> Progress | None:
    """Return a row's progress; one broken folder does not hide the other rows."""
    try:
        return read_progress(_folder(submission, Path()))
    except (UserError, OSError) as error:
        say(f"{submission.id}: {error}")
        return None


def show_status(name: str, address: str, storage: Path, as_json: bool) -> None:
    """Print how one run stands."""
    found = find(name, address, storage)
    facts = _facts(found)
    if as_json:
        print(json.dumps(facts))
        return
    for key in ("run_id", "submission_id", "status", "run_status", "progress_text", "folder"):
        if facts[key]:
            print(f"{key.removesuffix('_text'):<14} {facts[key]}")
    for key in ("started", "ended"):
        if facts[key]:
            print(f"{key:<14} {facts[key]}")
    if facts["message"]:
        print(f"{'message':<14} {facts['message']}")


def show_logs(name: str, address: str, storage: Path, *, follow_run: bool) -> int:
    """Print what a run has printed, on request until it ends; return the exit code."""
    found = find(name, address, storage)
    if found.cluster is not None and found.submission is not None:
        if follow_run:
            return follow(found.cluster, found.submission.id, sys.stdout)[1]
        print(found.cluster.logs(found.submission.id), end="")
        return 0
    return _show_log_file(found.folder, follow_run)


def stop_run(name: str, address: str, storage: Path) -> None:
    """Ask a run to stop with a checkpoint, and say so.

    Raises:
      RunError: the cluster did not take the request.
    """
    found = find(name, address, storage)
    if found.cluster is None or found.submission is None:
        _request_stop(found.folder)
    elif not found.submission.active:
        say(f"{found.submission.id} has ended already: {found.submission.status}")
    elif found.cluster.stop(found.submission.id):
        say(f"{found.submission.id}: asked to stop; it saves a checkpoint first.")
    else:
        raise RunError(f"{found.submission.id} does not run yet; ask again when it does.")


def _request_stop(folder: Path) -> None:
    progress = read_progress(folder)
    if progress is None or progress.status not in ("created", "running"):
        say(f"{folder.name} does not run: {progress.status if progress else 'no manifest'}")
        return
    (folder / "stop-requested").touch()
    say(f"{folder.name}: asked to stop after its current update, with a checkpoint.")


def _show_log_file(folder: Path, follow_run: bool) -> int:
    path = folder / "log.txt"
    if not path.is_file():
        raise RunError(f"{folder} has no log.txt yet.")
    with path.open(encoding="utf-8", errors="replace") as file:
        while True:
            progress = read_progress(folder)
            print(file.read(), end="", flush=True)
            ended = progress is None or progress.status not in ("created", "running")
            if not follow_run or ended:
                break
            time.sleep(_POLL_S)
    failed = progress is None or progress.status != "succeeded"
    return 1 if follow_run and failed else 0


def _facts(found: Found) -> dict[str, Any]:
    progress = found.progress
    if found.submission is not None:
        return _row(found.submission, progress) | {"folder": str(found.folder)}
    assert progress is not None
    return {
        "run_id": found.run_id,
        "submission_id": None,
        "status": progress.status,
        "run_status": None,
        "started": progress.started,
        "ended": progress.ended,
        "message": "",
        "progress": asdict(progress),
        "progress_text": str(progress),
        "folder": str(found.folder),
    }


def _row(submission: Submission, progress: Progress | None) -> dict[str, Any]:
    return {
        "run_id": submission.run_id,
        "submission_id": submission.id,
        "status": submission.status,
        "run_status": progress.status if progress else None,
        "started": _time(submission.started),
        "ended": _time(submission.ended),
        "message": submission.message,
        "progress": asdict(progress) if progress else None,
        "progress_text": str(progress) if progress else "",
    }


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
