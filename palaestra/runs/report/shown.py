"""What a page shows: step and fingerprint of each run, written into it and read back."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palaestra.runs.report.read import Run

_TAIL = 1_000_000
"""The record stands at the end of a page, so that a page that was cut has none."""

_RECORD = re.compile(
    rb'<script type="application/json" id="shown">([^\n]*)</script>\n</body>\n</html>\n\Z'
)


def record(runs: Sequence[Run]) -> dict[str, Any]:
    """Return what a page about the runs has to show: run id -> `step` and `hash`."""
    return {run.name: {"step": run.steps, "hash": fingerprint(run)} for run in runs}


def fingerprint(run: Run) -> str:
    """Return the SHA-256 of a run's configuration, status, step and evaluations."""
    evaluated = [(item.suite, item.step, item.agent, item.summary) for item in run.evaluated]
    content = [run.config, run.status, run.steps, evaluated]
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def shows(page: Path) -> dict[str, Any]:
    """Return what a page shows: run id -> `step` and `hash`.

    Empty where there is no page, where it was cut in writing, and where it is no report. Only the
    end of the file is read.
    """
    if not page.is_file():
        return {}
    with page.open("rb") as file:
        file.seek(max(0, page.stat().st_size - _TAIL))
        found = _RECORD.search(file.read())
    return dict(json.loads(found[1])) if found else {}
