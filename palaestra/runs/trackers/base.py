"""What a tracker is, which there are, and what they share; imports none of their packages."""

import importlib.util
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from datetime import datetime
from numbers import Real
from time import time
from typing import Any

from palaestra.errors import UserError, did_you_mean
from palaestra.runs.store.record import RunRecord

TRACKERS = ("tensorboard", "mlflow", "wandb")
"""The names of the trackers; each is also the name of the package behind it."""


class Tracker(ABC):
    """Shows the metrics of one run in another tool, with agent steps as the x-axis.

    Opening one removes what an earlier process wrote of the same run, so that no step is in it
    twice.
    """

    @abstractmethod
    def config(self, values: Mapping[str, Any]) -> None:
        """Note the configuration of the run."""

    @abstractmethod
    def log(self, metrics: Mapping[str, Any], agent_steps: int) -> None:
        """Note the finite numbers whose names have a slash; other values are left out."""

    @abstractmethod
    def close(self) -> None:
        """Write what is still held back, and how the run ended according to its record."""


def check_trackers(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names, each once, if there are such trackers.

    Raises:
      UserError: a name is unknown; the nearest ones are listed.
    """
    chosen = tuple(dict.fromkeys(names))
    for name in chosen:
        if name not in TRACKERS:
            raise UserError(f"trackers: unknown tracker {name!r}: {did_you_mean(name, TRACKERS)}")
    return chosen


def require_trackers(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names, each once, if their packages are installed; nothing is imported.

    Raises:
      UserError: a name is unknown, or its package is missing; the command to install it is named.
    """
    chosen = check_trackers(names)
    for name in chosen:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"trackers: {name!r} needs the package {name!r}, which is not installed: "
                "pip install 'palaestra[tracking]'"
            )
    return chosen


def scalars(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers whose names have a slash."""
    return {
        name: float(value)
        for name, value in metrics.items()
        if "/" in name and isinstance(value, Real) and math.isfinite(value)
    }


def wall_time(manifest: Mapping[str, Any], metrics: Mapping[str, Any]) -> float:
    """Return the Unix time in seconds at which a line of metrics was written.

    It follows from the line and the manifest, so that a replay repeats it; values that name no
    attempt are of now.
    """
    if "attempt" not in metrics:
        return time()
    started = manifest["attempts"][int(metrics["attempt"]) - 1]["started"]
    return datetime.fromisoformat(started).timestamp() + float(metrics["t"])


def state_of(record: RunRecord, rows: int) -> str:
    """Return a text that changes with what a tracker holding `rows` rows of the run would lack."""
    return f"{record.status}, attempt {len(record.manifest['attempts'])}, {rows} rows"
