"""Fill trackers from the run folder: one path for a start, a resume, a crash and on demand."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from palaestra.errors import RunError, UserError
from palaestra.runs.report.read import read_lines
from palaestra.runs.store.lock import owner_of
from palaestra.runs.trackers.base import Tracker, require_trackers

if TYPE_CHECKING:
    from palaestra.runs.store.folder import RunFolder

_CLASSES = {"tensorboard": "TensorBoardTracker", "mlflow": "MlflowTracker", "wandb": "WandbTracker"}


def open_trackers(
    names: Iterable[str], folder: "RunFolder", tell: Callable[[str], None] | None = None
) -> list[Tracker]:
    """Open trackers for a process that trains a run; what the run folder has is in them already.

    The trackers that are returned never end the run: one that fails says so once, and is then left
    alone. Nothing is lost by it, because the run folder has every value.

    Args:
      names: names of trackers.
      folder: the run, with its metrics cut back to where it goes on.
      tell: told of a tracker that failed; None writes to standard error.

    Raises:
      UserError: an unknown name, a missing package, or W&B online without a key.
    """
    tell = tell or _to_stderr
    trackers: list[Tracker] = []
    for name in require_trackers(names):
        try:
            trackers.append(SafeTracker(name, folder, _open(name, folder), tell))
        except UserError:
            raise
        except Exception as error:
            tell(_failure(name, folder, error))
    return trackers


def replay(folder: "RunFolder", names: Iterable[str]) -> None:
    """Write a run into trackers, in place of what they have of it.

    Raises:
      UserError: an unknown name, a missing package, a broken file, or a live process that writes
        the run and this tracker itself.
      RunError: a tracker failed.
    """
    chosen = require_trackers(names)
    owner = owner_of(folder.path)
    written = own_trackers(read_config(folder.path)) if owner else ()
    for name in chosen:
        if owner and name in written:
            raise UserError(
                f"run {folder.manifest['run_id']!r} is being trained by process "
                f"{owner.get('pid')} on {owner.get('host')}, which writes to {name} itself."
            )
    for name in chosen:
        try:
            _open(name, folder).close()
        except UserError:
            raise
        except Exception as error:
            raise RunError(
                f"{name}: run {folder.manifest['run_id']!r} could not be written: "
                f"{type(error).__name__}: {error}"
            ) from error


class SafeTracker(Tracker):
    """A tracker whose failure does not end the run: it is told once, then nothing more is written.

    Args:
      name: the tracker's name.
      folder: the run.
      tracker: the tracker, or None once it has failed.
      tell: told of the failure.
    """

    def __init__(
        self, name: str, folder: "RunFolder", tracker: Tracker | None, tell: Callable[[str], None]
    ) -> None:
        self.name, self._folder = name, folder
        self._tracker, self._tell = tracker, tell

    def config(self, values: Mapping[str, Any]) -> None:
        """Note the configuration of the run."""
        self._call("config", values)

    def log(self, metrics: Mapping[str, Any], agent_steps: int) -> None:
        """Note the metrics."""
        self._call("log", metrics, agent_steps)

    def close(self) -> None:
        """Close the tracker."""
        self._call("close")

    def _call(self, method: str, *arguments: Any) -> None:
        if self._tracker is None:
            return
        try:
            getattr(self._tracker, method)(*arguments)
        except Exception as error:
            self._tracker = None
            self._tell(_failure(self.name, self._folder, error))


def _failure(name: str, folder: "RunFolder", error: Exception) -> str:
    return (
        f"tracker {name} failed and is left out: {type(error).__name__}: {error}\n"
        "Nothing is lost; fill it later with: "
        f"palaestra track {folder.manifest['run_id']} --to {name}"
    )


def _open(name: str, folder: "RunFolder") -> Tracker:
    """Return a tracker that has everything that the run folder has."""
    module = import_module(f"palaestra.runs.trackers.{name}")
    tracker: Tracker = getattr(module, _CLASSES[name])(folder)
    tracker.config(read_config(folder.path))
    for agent_steps, values in history(folder.path):
        tracker.log(values, agent_steps)
    return tracker


def history(path: Path) -> list[tuple[int, Mapping[str, Any]]]:
    """Return the rows of a run as (agent steps, values): its metrics, then its evaluations.

    Raises:
      UserError: a broken file.
    """
    rows: list[tuple[int, Mapping[str, Any]]] = []
    for number, line in enumerate(read_lines(path / "metrics.jsonl", []), start=1):
        if not isinstance(line.get("agent_steps"), int):
            raise UserError(
                f"{path / 'metrics.jsonl'}, entry {number}: agent_steps is "
                f"{line.get('agent_steps')!r}; expected a whole number."
            )
        rows.append((line["agent_steps"], line))
    return rows + _evaluations(path)


def _evaluations(path: Path) -> list[tuple[int, Mapping[str, Any]]]:
    """Return the evaluations of the run's own agent, without the reference agents beside it."""
    config = read_config(path)
    parts = (config["agent"], config.get("policy"))
    own = "-".join(part["name"] for part in parts if part)
    rows = []
    for file in path.glob("eval/*-*/**/summary.json"):
        suite, _, step = file.relative_to(path / "eval").parts[0].rpartition("-")
        summary = json.loads(file.read_text(encoding="utf-8"))
        if summary["agent"] == own:
            rows.append((int(step), _evaluation_metrics(suite, summary)))
    return sorted(rows, key=lambda row: row[0])


def _evaluation_metrics(suite: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return estimates over all tasks as `eval/<suite>/...`, and of each as `eval/<task>/...`."""
    values = {f"eval/{suite}/{k}": v["value"] for k, v in summary["aggregate"].items()}
    for task in summary["tasks"]:
        values[f"eval/{task['id']}/score"] = task["score"]["mean"]
        values |= {f"eval/{task['id']}/{k}": v["mean"] for k, v in task["metrics"].items()}
    return values


def read_config(path: Path) -> dict[str, Any]:
    """Return the configuration of a run as written, whether or not its plug-ins are installed."""
    return dict(yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8")))


def own_trackers(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the trackers that a run writes while it trains."""
    first = ("tensorboard",) if config["tensorboard"] else ()
    return (*first, *config.get("trackers", ()))


def _to_stderr(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
