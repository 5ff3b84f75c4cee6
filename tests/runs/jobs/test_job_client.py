"""Addresses: what is accepted, and what is said at once about those that do not answer."""

import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from fakes import FakeClient
from ray_head import free_ports

from palaestra.errors import UserError
from palaestra.runs.jobs import client as module
from palaestra.runs.jobs.client import Cluster, NoAnswerError, connect


@pytest.mark.parametrize(
    "address",
    [
        *("", "auto", "localhost", "127.0.0.1:8265", "ray://127.0.0.1:10001", "http://host"),
        *("file:///etc/passwd", "http://:8265", "http://host:port", "http://host:99999"),
        *("http://127.0.0.1:8265/path", "ftp://127.0.0.1:21", "os://127.0.0.1:1"),
    ],
)
def test_an_address_that_is_none_is_refused_with_what_is_accepted(address: str) -> None:
    with pytest.raises(UserError, match=r"accepted is http\(s\)://host:port"):
        connect(address)


def test_where_nothing_listens_the_answer_says_how_to_start_a_cluster() -> None:
    (port,) = free_ports(1)
    with pytest.raises(NoAnswerError, match="ray start --head"):
        connect(f"http://127.0.0.1:{port}")


class Server:
    """Answers every request with one status and text."""

    def __init__(self, status: int, text: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def answer() -> Iterator[list[Server]]:
    servers: list[Server] = []
    yield servers
    for one in servers:
        one.server.shutdown()
        one.server.server_close()


@pytest.mark.parametrize(
    ("status", "text"), [(404, "nothing"), (200, "<html>"), (200, "{}"), (500, "[]"), (200, "1")]
)
def test_what_answers_but_is_no_dashboard_is_refused(
    answer: list[Server], status: int, text: str
) -> None:
    answer.append(Server(status, text))
    with pytest.raises(UserError, match="not as the dashboard of a Ray cluster"):
        connect(answer[0].address)


@pytest.mark.parametrize("status", [401, 403])
def test_a_cluster_that_asks_for_a_token_is_an_error_that_says_how(
    answer: list[Server], status: int
) -> None:
    answer.append(Server(status, "token, please"))
    before = os.environ.get("RAY_AUTH_MODE")
    with pytest.raises(UserError, match=r"RAY_AUTH_MODE=token.*RAY_AUTH_TOKEN_PATH"):
        connect(answer[0].address)
    assert os.environ.get("RAY_AUTH_MODE") == before  # the next cluster may ask for none


def test_a_listener_that_never_answers_does_not_keep_one_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_ANSWER_S", 0.2)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(UserError, match="TimeoutError"),
    ):
        connect(f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_the_address_given_wins_over_the_environment(
    answer: list[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = free_ports(1)
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    answer.append(Server(200, '{"version": "4", "ray_version": "2.60.0"}'))
    cluster = connect(answer[0].address)
    assert cluster.client.get_address() == answer[0].address
    assert os.environ["RAY_ADDRESS"] == f"http://127.0.0.1:{port}"


def test_jobs_that_are_not_palaestras_are_not_shown() -> None:
    fake = FakeClient()
    fake.add("r-a1", "RUNNING")
    fake.add("raysubmit_x", "RUNNING")
    fake.add("other-a1", "RUNNING")
    fake.jobs["other-a1"].metadata = {}
    fake.add("zero-a0", "RUNNING")
    assert [s.id for s in Cluster(fake, "here").submissions()] == ["r-a1"]
