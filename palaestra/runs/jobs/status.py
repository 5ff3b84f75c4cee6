"""What became of submitted runs: from the cluster while it answers, else from the run folder."""

import json
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from palaestra.errors import RunError, UserError, did_you_mean
from palaestra.runs.jobs.client import Cluster, NoAnswerError, Submission, connect
from palaestra.runs.jobs.watch import follow
from palaestra.runs.progress import say
from palaestra.runs.store.record import Progress, RunRecord

_POLL_S = 0.5


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
    return RunRecord.open(folder).progress if (folder / "manifest.json").is_file() else None


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
    runs = set(RunRecord.names(storage))
    run_id = name if name in runs else name.rpartition("-a")[0]
    if run_id not in runs:
        raise UserError(
            f"unknown run or submission {name!r}: {did_you_mean(name, runs | (known or set()))} "
            f"Looked in {storage.absolute()}; {reason}"
        )
    if name != run_id or RunRecord.open(storage / run_id).submitted:
        say(f"from the run folder {storage / run_id}; {reason}")
    return Found(run_id, storage / run_id)


def _folder(submission: Submission, storage: Path) -> Path:
    return Path(submission.metadata.get("storage", storage)) / submission.run_id


def show_jobs(address: str, as_json: bool) -> None:
    """Print a table of all submissions, the latest last."""
    submissions = connect(address).submissions()
    known = [Found(s.run_id, _folder(s, Path()), None, s) for s in submissions]
    rows = [_facts(found, _progress_or_none(found)) for found in known]
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
    for row in rows:
        shown = ("submission_id", "run_id", "status", "started", "ended", "progress_text")
        table.add_row(*(escape(row[key]) for key in shown))
    Console(width=None if sys.stdout.isatty() else 250).print(table)


def _progress_or_none(found: Found) -> Progress | None:
    """Return a row's progress; one broken folder does not hide the other rows."""
    try:
        return found.progress
    except (UserError, OSError) as error:
        say(f"{found.submission.id if found.submission else found.run_id}: {error}")
        return None


def show_status(name: str, address: str, storage: Path, as_json: bool) -> None:
    """Print how one run stands."""
    found = find(name, address, storage)
    facts = _facts(found, found.progress)
    if as_json:
        print(json.dumps(facts))
        return
    del facts["progress"]
    for key, value in facts.items():
        if value:
            print(f"{key.removesuffix('_text'):<14} {value}")


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


def _facts(found: Found, progress: Progress | None) -> dict[str, Any]:
    """Return what is known of a run; the status is the job's where there is one."""
    job, run_status = found.submission, progress.status if progress else None
    times = (_time(job.started), _time(job.ended)) if job else _times(progress)
    return {
        "run_id": found.run_id,
        "submission_id": job.id if job else None,
        "status": job.status if job else run_status,
        "run_status": run_status if job else None,
        "started": times[0],
        "ended": times[1],
        "message": job.message if job else "",
        "progress": asdict(progress) if progress else None,
        "progress_text": str(progress) if progress else "",
        "folder": str(found.folder),
    }


def _times(progress: Progress | None) -> tuple[str | None, str | None]:
    return (progress.started, progress.ended) if progress else (None, None)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
