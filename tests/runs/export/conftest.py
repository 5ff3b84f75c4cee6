"""Tiny runs, trained once, and copies of their exports that a test may spoil."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from export_example import RUNS, config_of

from palaestra.runs.config import EvaluationConfig
from palaestra.runs.evaluation.run import evaluate_run
from palaestra.runs.export.write import write_export
from palaestra.runs.store.folder import RunFolder
from palaestra.runs.training.train import train


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    """One finished run for each name of `RUNS`; the bandit run is evaluated."""
    root = tmp_path_factory.mktemp("runs")
    found = {name: train(config_of(name), name, root=root, quiet=True) for name in RUNS}
    evaluation = found["ppo-gru"].config().evaluation
    assert isinstance(evaluation, EvaluationConfig)
    evaluate_run(found["ppo-gru"], evaluation)
    return found


@pytest.fixture(scope="session")
def exports(
    runs: dict[str, RunFolder], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The export of each run; not to be changed."""
    root = tmp_path_factory.mktemp("exports")
    return {name: write_export(run, root / name).path for name, run in runs.items()}


@pytest.fixture
def copy_of(exports: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Return a function from the name of a run to a copy of its export."""
    return lambda name: shutil.copytree(exports[name], tmp_path / "copies" / name)
