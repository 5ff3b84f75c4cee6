"""What a page shows, noted as its last line: a page that was cut off or is outdated lacks it."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from palaestra.runs.report.read import Record


def stamp(records: Sequence[Record]) -> str:
    """Return the last line of a page about these runs, a comment of HTML.

    It holds the agent steps of each run, and a hash of its configuration, status and evaluations.
    """
    shown = [{"run": r.id, "agent_steps": r.steps, "hash": _hash(r)} for r in records]
    text = json.dumps(shown).replace("<", "\\u003c").replace(">", "\\u003e")
    return f"<!-- shown: {text} -->\n"


def shows(page: Path, records: Sequence[Record]) -> bool:
    """Whether a page was written to its end and shows these runs as they are now."""
    if not page.is_file():
        return False
    last = stamp(records).encode()
    with page.open("rb") as file:
        file.seek(max(0, page.stat().st_size - len(last)))
        return file.read() == last


def _hash(record: Record) -> str:
    found = [[e.suite, e.step, e.agent, e.summary] for e in record.evaluations()]
    facts = [record.manifest.get("config_hash"), record.status, found]
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
