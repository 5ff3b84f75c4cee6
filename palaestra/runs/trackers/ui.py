"""The web page of MLflow over a folder of runs, on this machine alone."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from palaestra.errors import RunError, UserError
from palaestra.runs.store.record import RunRecord
from palaestra.runs.trackers.base import require_trackers, state_of
from palaestra.runs.trackers.mlflow import ARTIFACTS, QUIET, STATE, find_runs, open_store, store_uri
from palaestra.runs.trackers.replay import history, own_trackers, replay

HOST = "127.0.0.1"
START_S, END_S = 120, 10


def check_port(port: int) -> None:
    """Do nothing if the port is free.

    Raises:
      UserError: it is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(
                f"--port: {port} is not free on {HOST} ({error.strerror}); "
                f"choose another one, as --port {port + 1}."
            ) from None


def find_runs_in(root: Path) -> list[RunRecord]:
    """Return every run in a folder of runs.

    Raises:
      UserError: there is none.
    """
    records = [RunRecord.open(root / name) for name in RunRecord.names(root)]
    if not records:
        raise UserError(
            f"no run in {root}{os.sep}; make one with: palaestra train demo. Runs elsewhere are "
            "found through the environment variable PALAESTRA_RUNS."
        )
    return records


def sync(root: Path, tell: Callable[[str], None]) -> list[str]:
    """Bring every run that MLflow lacks or has in an older state into its store.

    Args:
      root: the folder of runs.
      tell: told of each run that is brought, left to the process that trains it, or broken.

    Returns:
      The ids of the runs that were brought.

    Raises:
      UserError: there is no run, or MLflow is not installed.
    """
    records = find_runs_in(root)
    require_trackers(["mlflow"])
    client = open_store(root)
    brought = []
    for record in records:
        try:
            if record.owner and "mlflow" in own_trackers(record.config):
                continue
            known = [run.data.tags.get(STATE) for run in find_runs(client, record.id)]
            if known != [state_of(record, sum(1 for _ in history(record)))]:
                tell(f"bringing run {record.id} to MLflow")
                replay(record, ["mlflow"])
                brought.append(record.id)
        except (UserError, RunError) as error:  # one broken run does not hide the others
            tell(f"run {record.id} is left out: {error}")
    return brought


@contextmanager
def server(root: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Give the child process that serves the page, once it answers; end it with all its children.

    Raises:
      UserError: the port is taken, or MLflow is not installed.
      RunError: the server ended or did not answer within two minutes.
    """
    require_trackers(["mlflow"])
    check_port(port)
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            _command(root, port),
            env=_environment(port),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is ours to pass on
        )
        try:
            _wait_until_it_answers(child, port, output)
            yield child
        finally:
            _end(child)


def _command(root: Path, port: int) -> list[str]:
    options = {
        "--backend-store-uri": store_uri(root),
        "--artifacts-destination": str((root / ARTIFACTS).resolve()),
        "--host": HOST,
        "--port": str(port),
        "--workers": "1",
        "--app-name": "palaestra",
        # The plain application: the one that uvicorn serves adds an assistant that can run commands
        # on this machine for whoever reaches the port.
        "--gunicorn-opts": "--threads 4 --log-level warning",
    }
    flat = [word for option in options.items() for word in option]
    return [sys.executable, "-m", "mlflow", "server", *flat]


def _environment(port: int) -> dict[str, str]:
    """Return this environment without settings of MLflow, which could open or redirect the page."""
    kept = {key: value for key, value in os.environ.items() if "MLFLOW" not in key}
    own = {
        # Other names that lead here are refused: no web page reaches in by its own host name.
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"{HOST}:{port},localhost:{port}",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    return kept | QUIET | own


def _wait_until_it_answers(child: subprocess.Popen[bytes], port: int, output: IO[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while not _answers(port):
        if child.poll() is not None or time.monotonic() > deadline:
            output.seek(0)
            said = output.read().decode(errors="replace").strip()[-2000:]
            raise RunError(f"MLflow's server did not start; it said:\n{said}")
        time.sleep(0.2)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the child and its children, politely at first."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            break
        try:
            child.wait(END_S)
        except subprocess.TimeoutExpired:
            continue
    child.wait()
