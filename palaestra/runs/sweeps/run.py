"""One run of a sweep, and how its task went."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palaestra.runs.config import RunConfig


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
    def manifest(self) -> dict[str, Any]:
        """The run's manifest; empty before the run has a folder."""
        path = self.path / "manifest.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    @property
    def status(self) -> str:
        """The run's status; "failed" whatever the manifest of a process that died says."""
        return "failed" if self.error else str(self.manifest.get("status", "waiting"))
