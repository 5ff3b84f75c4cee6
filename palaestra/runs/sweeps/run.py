"""One run of a sweep, and how its task went."""

from dataclasses import dataclass
from pathlib import Path

from palaestra.runs.config import RunConfig
from palaestra.runs.store.record import RunRecord


@dataclass
class SeedRun:
    """One seed: its run, and how its task went."""

    config: RunConfig
    run_id: str
    path: Path
    crashes: int = 0
    error: str = ""
    bad_input: bool = False

    @property
    def record(self) -> RunRecord | None:
        """The run as it is now; None before it has a folder."""
        return RunRecord(self.path) if (self.path / "manifest.json").is_file() else None

    @property
    def status(self) -> str:
        """How the run stands now; "failed" whatever the manifest of a process that died says."""
        record = None if self.error else self.record
        return "failed" if self.error else record.status if record else "waiting"
