"""A Ray cluster of two CPUs on this machine, with its dashboard, for tests alone."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

START_S = 120
PORTS = (
    *("--port", "--dashboard-port", "--dashboard-agent-listen-port"),
    *("--dashboard-agent-grpc-port", "--ray-client-server-port", "--metrics-export-port"),
)


@dataclass(frozen=True)
class Head:
    """A running head: where its dashboard and its drivers are, and what a process needs to join."""

    address: str
    driver_address: str
    environment: dict[str, str]


@contextmanager
def ray_head() -> Iterator[Head]:
    """Start a head that asks for a token, and end all of its processes."""
    # Sockets lie below this folder, and their paths may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="rj-", dir="/tmp"))
    token = secrets.token_hex(32)
    (folder / "token").write_text(token)
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token")}
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    command += ["--num-cpus", "2", "--disable-usage-stats", "--temp-dir", str(folder)]
    command += ["--include-dashboard", "true", "--dashboard-host", "127.0.0.1"]
    command += ["--object-store-memory", str(200 * 1024**2)]
    command += [word for name, port in ports.items() for word in (name, str(port))]
    environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "PYTHONPATH")}
    if sys.prefix != sys.base_prefix:  # as if it was started without activating the environment
        own_bin = str(Path(sys.prefix) / "bin")
        folders = environment["PATH"].split(os.pathsep)
        environment["PATH"] = os.pathsep.join(folder for folder in folders if folder != own_bin)
    with (folder / "head.log").open("w") as log:
        head = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env=environment | own | {"OMP_NUM_THREADS": "1"},
            cwd=folder,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{ports['--dashboard-port']}"
        _wait_until_it_answers(head, address, token, folder / "head.log")
        yield Head(address, f"127.0.0.1:{ports['--port']}", own)
    finally:
        _end(head)
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(n: int) -> list[int]:
    """Return ports of this machine that nobody uses now."""
    sockets = [socket.socket() for _ in range(n)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _wait_until_it_answers(
    head: subprocess.Popen[bytes], address: str, token: str, log: Path
) -> None:
    jobs = urllib.request.Request(
        f"{address}/api/jobs/", headers={"Authorization": f"Bearer {token}"}
    )
    deadline = time.monotonic() + START_S
    while True:
        try:
            urllib.request.urlopen(jobs, timeout=10).close()
            return
        except OSError as error:
            if head.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no head: {error}\n{log.read_text()}") from error
        time.sleep(0.5)


def _end(head: subprocess.Popen[bytes]) -> None:
    """End the head, which ends its own processes, then what is left in its group."""
    head.terminate()
    with suppress(subprocess.TimeoutExpired):
        head.wait(30)
    with suppress(ProcessLookupError):
        os.killpg(head.pid, signal.SIGKILL)
    head.wait()
