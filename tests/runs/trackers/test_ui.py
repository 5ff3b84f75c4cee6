"""The page: on this machine alone, ended by Ctrl-C with all its processes."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tracker_cases import MakeRun, line

from palaestra.errors import UserError
from palaestra.runs.trackers.ui import check_port

PROGRAM = "import typer; from palaestra.runs.cli.trackers import ui; typer.run(ui)"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(
    port: int, method: str, path: str, host: str, body: str | None = None, **headers: str
) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers |= {"Host": host, "Content-Type": "application/json"}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode(errors="replace")


def listens(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((address, port)) == 0


def members(group: int) -> list[int]:
    """The processes of a process group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def children(parent: int) -> list[int]:
    text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(word) for word in text.split()]


def test_a_taken_port_is_named_with_the_option() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match=rf"--port: {taken.getsockname()[1]} is not free"):
            check_port(taken.getsockname()[1])


@pytest.mark.slow
def test_the_page_answers_on_loopback_only_and_ends_at_ctrl_c(make_run: MakeRun) -> None:
    root, port = make_run([line(0), line(10)]).path.parent, free_port()
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "--port", str(port)],
        env={**os.environ, "PALAESTRA_RUNS": str(root)},
        stdout=subprocess.PIPE,
        text=True,
        # As a terminal starts it; tests may run where Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == f"http://127.0.0.1:{port}\n"
        (server,) = children(program.pid)
        for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
            status, page = ask(port, "GET", "/", host)
            assert (status, "<title>MLflow</title>" in page) == (200, True)
            query = json.dumps({"experiment_ids": ["1"]})
            status, found = ask(port, "POST", "/ajax-api/2.0/mlflow/runs/search", host, query)
            assert status == 200
            assert "rollout/return" in found
        status, said = ask(port, "GET", "/ajax-api/3.0/mlflow/ui-telemetry", f"localhost:{port}")
        assert json.loads(said)["disable_ui_telemetry"] is True
        assert ask(port, "GET", "/", "elsewhere.example")[0] == 403
        elsewhere = "http://elsewhere.example"
        path = "/ajax-api/2.0/mlflow/runs/search"
        assert ask(port, "POST", path, f"localhost:{port}", query, Origin=elsewhere)[0] == 403
        path = "/ajax-api/3.0/mlflow/assistant/message"  # it could run commands here
        assert ask(port, "POST", path, f"localhost:{port}", "{}")[0] == 404
        assert not listens("127.0.0.2", port)
        program.send_signal(signal.SIGINT)
        assert program.wait(60) == 0
        assert members(server) == []
        assert not listens("127.0.0.1", port)
    finally:
        program.kill()
        program.wait()
