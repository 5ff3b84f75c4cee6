"""A run folder written by hand, and one migrated MLflow store for all tests of a process."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from tracker_cases import MakeRun, config

from palaestra.runs.store.folder import RunFolder
from palaestra.runs.trackers.mlflow import STORE, open_store


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow store with all its tables, which take seconds to make."""
    root = tmp_path_factory.mktemp("store")
    open_store(root)
    return root / STORE


@pytest.fixture
def make_run(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> MakeRun:
    """Make a run folder in its first attempt, with these lines of metrics."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "runs"
    root.mkdir()
    shutil.copy(migrated, root / STORE)

    def make(lines: list[dict[str, Any]], run_id: str = "walk", **changes: Any) -> RunFolder:
        folder = RunFolder.create(run_id, config(**changes), root)
        folder.begin_attempt(0)
        for row in lines:
            folder.write_metrics(row)
        return folder

    return make
