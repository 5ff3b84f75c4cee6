"""Fill trackers from the run folder: one path for a start, a resume, a crash and on demand."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any

from palaestra.errors import RunError, UserError
from palaestra.runs.progress import say
from palaestra.runs.store.record import RunRecord
from palaestra.runs.trackers.base import Tracker, require_trackers

_CLASSES = {"tensorboard": "TensorBoardTracker", "mlflow": "MlflowTracker", "wandb": "WandbTracker"}


def open_trackers(
    names: Iterable[str], record: RunRecord, tell: Callable[[str], None] = say
) -> list[Tracker]:
    """Open trackers for a process that trains a run; what the run folder has is in them already.

    The trackers that are returned never end the run: one that fails says so once, and is then left
    alone. Nothing is lost by it, because the run folder has every value.

    Args:
      names: names of trackers.
      record: of the run, with its metrics cut back to where it resumes.
      tell: told of a tracker that failed.

    Raises:
      UserError: an unknown name, a missing package, or W&B online without a key.
    """
    trackers: list[Tracker] = []
    for name in require_trackers(names):
        try:
            trackers.append(SafeTracker(name, record, _open(name, record), tell))
        except UserError:
            raise
        except Exception as error:
            tell(_failure(name, record, error))
    return trackers


def replay(record: RunRecord, names: Iterable[str]) -> None:
    """Write a run into trackers, in place of what they have of it.

    Raises:
      UserError: an unknown name, a missing package, a broken file, or a live process that writes
        the run and this tracker itself.
      RunError: a tracker failed.
    """
    chosen = require_trackers(names)
    owner = record.owner
    written = own_trackers(record.config) if owner else ()
    for name in chosen:
        if owner and name in written:
            raise UserError(
                f"run {record.id!r} is being trained by process "
                f"{owner.get('pid')} on {owner.get('host')}, which writes to {name} itself."
            )
    for name in chosen:
        try:
            _open(name, record).close()
        except UserError:
            raise
        except Exception as error:
            raise RunError(
                f"{name}: run {record.id!r} could not be written: {type(error).__name__}: {error}"
            ) from error


class SafeTracker(Tracker):
    """A tracker whose failure does not end the run: it is told once, then nothing more is written.

    Args:
      name: the tracker's name.
      record: of the run.
      tracker: the tracker, or None once it has failed.
      tell: told of the failure.
    """

    def __init__(
        self, name: str, record: RunRecord, tracker: Tracker | None, tell: Callable[[str], None]
    ) -> None:
        self.name, self._record = name, record
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
            self._tell(_failure(self.name, self._record, error))


def _failure(name: str, record: RunRecord, error: Exception) -> str:
    return (
        f"tracker {name} failed and is left out: {type(error).__name__}: {error}\n"
        "Nothing is lost; fill it later with: "
        f"palaestra track {record.id} --to {name}"
    )


def _open(name: str, record: RunRecord) -> Tracker:
    """Return a tracker that has everything that the run folder has."""
    module = import_module(f"palaestra.runs.trackers.{name}")
    tracker: Tracker = getattr(module, _CLASSES[name])(record)
    tracker.config(record.config)
    for agent_steps, values in history(record):
        tracker.log(values, agent_steps)
    return tracker


def history(record: RunRecord) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the rows of a run as (agent steps, values): metrics, then evaluations of its agent.

    Raises:
      UserError: a broken file.
    """
    for line in record.metrics():
        yield line["agent_steps"], line
    own = [item for item in record.evaluations() if item.agent == record.agent]
    for item in sorted(own, key=lambda item: item.step):
        yield item.step, _evaluation_metrics(item.suite, item.summary)


def _evaluation_metrics(suite: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return estimates over all tasks as `eval/<suite>/...`, and of each as `eval/<task>/...`."""
    values = {f"eval/{suite}/{k}": v["value"] for k, v in summary["aggregate"].items()}
    for task in summary["tasks"]:
        values[f"eval/{task['id']}/score"] = task["score"]["mean"]
        values |= {f"eval/{task['id']}/{k}": v["mean"] for k, v in task["metrics"].items()}
    return values


def own_trackers(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the trackers that a run writes while it trains."""
    first = ("tensorboard",) if config["tensorboard"] else ()
    return (*first, *config.get("trackers", ()))
