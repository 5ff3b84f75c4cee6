"""MLflow: one SQLite store beside the run folders, which `palaestra ui` shows as a web page."""

import fcntl
import json
import os
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from palaestra.runs.config import flatten
from palaestra.runs.store.record import RunRecord, safe
from palaestra.runs.trackers.base import Tracker, scalars, state_of, wall_time

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

STORE = "mlflow.db"
"""Name of the store in the folder of runs."""

ARTIFACTS = "mlflow-artifacts"
"""Name of the folder of artifacts beside the store."""

RUN_ID, STATE = "palaestra.run_id", "palaestra.state"
"""Tags: the run's id, and the state of its folder that MLflow has in full."""

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Environment variables under which MLflow sends nothing, asks git nothing and says little."""

FLUSH_VALUES, FLUSH_SECONDS = 200, 1.0
_STATUS = {"succeeded": "FINISHED", "failed": "FAILED", "stopped": "KILLED", "killed": "KILLED"}
_FORBIDDEN = re.compile(r"[^\w\-. :/]", re.ASCII)
# What MLflow accepts: metrics and parameters in one call, characters of a name and of a value.
_MAX_METRICS, _MAX_PARAMS, _MAX_NAME, _MAX_VALUE = 1000, 100, 250, 6000


class MlflowTracker(Tracker):
    """Writes parameters and metrics of a run; an older MLflow run of the same run is deleted.

    Values are held back until there are 200 of them or a second has passed, because a write costs
    milliseconds whatever its size.

    Args:
      record: of the run; the store is in the folder that holds its folder.
    """

    def __init__(self, record: RunRecord) -> None:
        self._record = record
        root, run_id = record.path.parent, record.id
        self._client = open_store(root)
        for old in find_runs(self._client, run_id):
            _delete(self._client, old)
        run = self._client.create_run(
            _experiment(self._client, record.manifest["experiment"], root),
            start_time=_milliseconds(record.manifest["started"]),
            run_name=run_id,
            tags={RUN_ID: run_id},
        )
        self._id = run.info.run_id
        self._values: list[Any] = []
        self._rows = self._last = 0
        self._flushed = monotonic()

    def config(self, values: Mapping[str, Any]) -> None:
        """Write the configuration as parameters, and what runs are searched by as tags."""
        from mlflow.entities import Param, RunTag

        params = [Param(_name(key), _text(value)) for key, value in flatten(values).items()]
        for first in range(0, len(params), _MAX_PARAMS):
            self._client.log_batch(self._id, params=params[first : first + _MAX_PARAMS])
        tags = {
            "palaestra.agent": values["agent"]["name"],
            "palaestra.policy": (values.get("policy") or {}).get("name"),
            "palaestra.env": values["env"]["id"],
            "palaestra.seed": values["seed"],
            "palaestra.status": self._record.status,
            "palaestra.git_sha": self._record.manifest["code_version"]["git_sha"],
            "mlflow.note.content": values.get("description"),  # the page's description
        }
        given = [RunTag(key, str(value)) for key, value in tags.items() if value is not None]
        self._client.log_batch(self._id, tags=given)

    def log(self, metrics: Mapping[str, Any], agent_steps: int) -> None:
        """Take the metrics, and write all that were taken where it is time."""
        from mlflow.entities import Metric

        self._last = round(1000 * wall_time(self._record.manifest, metrics))
        self._values += [
            Metric(_name(name), value, self._last, agent_steps)
            for name, value in scalars(metrics).items()
        ]
        self._rows += 1
        if len(self._values) >= FLUSH_VALUES or monotonic() - self._flushed > FLUSH_SECONDS:
            self._flush()

    def close(self) -> None:
        """Write the rest, the status, and which state of the run folder this is."""
        self._flush()
        record = RunRecord(self._record.path)  # as it is now
        status = record.status
        self._client.set_tag(self._id, "palaestra.status", status)
        if status in _STATUS:
            ended = record.manifest["ended"] if status != "killed" else None
            milliseconds = _milliseconds(ended) if ended else self._last or None
            self._client.set_terminated(self._id, _STATUS[status], milliseconds)
        self._client.set_tag(self._id, STATE, state_of(record, self._rows))

    def _flush(self) -> None:
        for first in range(0, len(self._values), _MAX_METRICS):
            self._client.log_batch(self._id, metrics=self._values[first : first + _MAX_METRICS])
        self._values = []
        self._flushed = monotonic()


def store_uri(root: Path) -> str:
    """Return the address of the store in a folder of runs."""
    return f"sqlite:///{(root / STORE).resolve()}"


def open_store(root: Path) -> "MlflowClient":
    """Return a client of the store in a folder of runs, which is made where there is none."""
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    from mlflow.tracking import MlflowClient

    # Runs that start together would make the same tables; the folder itself is the lock.
    folder = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        return MlflowClient(store_uri(root), registry_uri=store_uri(root))
    finally:
        os.close(folder)


def find_runs(client: "MlflowClient", run_id: str) -> list["Run"]:
    """Return what the store has of a run, also what was deleted in the web page."""
    from mlflow.entities import ViewType

    experiments = client.search_experiments(view_type=ViewType.ALL)
    return list(
        client.search_runs(
            [experiment.experiment_id for experiment in experiments],
            f"tags.`{RUN_ID}` = '{run_id}'",
            run_view_type=ViewType.ALL,
        )
    )


def _delete(client: "MlflowClient", run: "Run") -> None:
    # What `mlflow gc` calls: the client alone only marks a run as deleted and keeps its values.
    client._tracking_client.store._hard_delete_run(run.info.run_id)


def _experiment(client: "MlflowClient", name: str, root: Path) -> str:
    """Return the id of the experiment of this name, made or taken back from the bin if need be."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            place = (root / ARTIFACTS).resolve().as_uri()
            return str(client.create_experiment(name, f"{place}/{safe(_name(name))}"))
        except MlflowException:  # another run of the experiment was faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _name(name: str) -> str:
    """Return the name with `_` for what MLflow does not accept in names."""
    return _FORBIDDEN.sub("_", name)[:_MAX_NAME]


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:_MAX_VALUE]


def _milliseconds(moment: str) -> int:
    return round(1000 * datetime.fromisoformat(moment).timestamp())
