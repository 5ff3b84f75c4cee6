"""TensorBoard: event files in the run's own folder; no account, no server."""

import shutil
from collections.abc import Mapping
from typing import Any

import yaml

from palaestra.runs.store.record import RunRecord
from palaestra.runs.trackers.base import Tracker, scalars, wall_time


class TensorBoardTracker(Tracker):
    """Writes scalars into `tensorboard/` of the run folder, which is emptied first.

    Args:
      record: of the run.
    """

    def __init__(self, record: RunRecord) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._record = record
        events = record.path / "tensorboard"
        shutil.rmtree(events, ignore_errors=True)
        self._writer = SummaryWriter(str(events))

    def config(self, values: Mapping[str, Any]) -> None:
        """Write the configuration as a text, in YAML."""
        text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
        self._writer.add_text("config", "    " + text.replace("\n", "\n    "), 0)

    def log(self, metrics: Mapping[str, Any], agent_steps: int) -> None:
        """Write one scalar for each metric."""
        seconds = wall_time(self._record.manifest, metrics)
        for name, value in scalars(metrics).items():
            self._writer.add_scalar(name, value, agent_steps, walltime=seconds)

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()
