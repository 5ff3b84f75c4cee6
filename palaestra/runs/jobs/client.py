"""The jobs of a Ray cluster, as far as Palaestra submitted them."""

import asyncio
import json
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from palaestra.errors import RunError, UserError

ADDRESS = "http://127.0.0.1:8265"
"""Where a cluster's dashboard answers unless it was told otherwise."""

ACTIVE = ("PENDING", "RUNNING")
"""States of a job that waits or runs; the others are STOPPED, SUCCEEDED and FAILED."""

_ANSWER_S = 5
_POLL_S = 1.0
_SUBMISSION_ID = re.compile(r"(?P<run>.+)-a(?P<attempt>[1-9][0-9]*)")


class NoAnswerError(UserError):
    """Nothing answers at the address of the cluster."""


@dataclass(frozen=True)
class Submission:
    """One attempt at a run, as the cluster knows it; times are seconds since 1970."""

    id: str
    run_id: str
    attempt: int
    status: str
    started: float | None = None
    ended: float | None = None
    message: str = ""
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.status in ACTIVE


class Cluster:
    """The Ray Jobs of one cluster.

    Args:
      client: a `ray.job_submission.JobSubmissionClient`.
      address: its address, for messages.
    """

    def __init__(self, client: Any, address: str) -> None:
        self.client, self.address = client, address

    def submissions(self, run_id: str | None = None) -> list[Submission]:
        """Return Palaestra's submissions, of one run or of all, the latest attempt last."""
        with self._asking():
            found = [_submission(job) for job in self.client.list_jobs()]
        known = [s for s in found if s is not None and run_id in (None, s.run_id)]
        return sorted(known, key=lambda s: (s.started or 0, s.run_id, s.attempt))

    def submit(self, submission_id: str, **job: Any) -> bool:
        """Submit a job; False if a job of this id exists already.

        Args:
          submission_id: the id.
          job: arguments of `JobSubmissionClient.submit_job`.

        Raises:
          RunError: the cluster does not take it.
        """
        try:
            with self._asking():
                self.client.submit_job(submission_id=submission_id, **job)
        except RunError as error:
            if "already exists" in str(error):
                return False
            raise
        return True

    def get(self, submission_id: str) -> Submission:
        """Return one submission as it is now."""
        with self._asking():
            found = _submission(self.client.get_job_info(submission_id))
        assert found is not None
        return found

    def stop(self, submission_id: str) -> bool:
        """Ask a job to stop, with SIGTERM; False if it does not run."""
        with self._asking():
            return bool(self.client.stop_job(submission_id))

    def logs(self, submission_id: str) -> str:
        """Return what a job has printed so far."""
        with self._asking():
            return str(self.client.get_job_logs(submission_id))

    def follow(self, submission_id: str, write: Callable[[str], object]) -> Submission:
        """Pass on what a job prints until it ends; return the ended submission."""
        import aiohttp

        seen = 0

        async def pass_on() -> None:
            nonlocal seen
            position = 0  # every connection starts at the beginning of the log
            async for text in self.client.tail_job_logs(submission_id):
                write(text[max(0, seen - position) :])
                position += len(text)
                seen = max(seen, position)

        while (found := self.get(submission_id)).active:
            # Where the connection breaks, the next question finds out if the cluster answers.
            with suppress(OSError, RuntimeError, aiohttp.ClientError):
                asyncio.run(pass_on())
            time.sleep(_POLL_S)
        # A job may end between the last connection and the question.
        write(self.logs(submission_id)[seen:])
        return found

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn what goes wrong on the way into errors that name the cluster."""
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            raise _token_error(self.address, error) from None
        except (OSError, RuntimeError) as error:  # errors of `requests` are OSErrors
            raise RunError(f"the cluster at {self.address} says: {error}") from None


def connect(address: str = ADDRESS) -> Cluster:
    """Return the jobs of the cluster at `address`.

    Raises:
      NoAnswerError: nothing answers there.
      UserError: not an address, not a Ray dashboard, or one that asks for a token.
    """
    headers = _own_token(address) if _asks_for_token(address) else None
    try:
        import aiohttp  # noqa: F401  (without it Ray's client imports, but does not work)
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise UserError(
            f"jobs need Ray with its dashboard ({error}): pip install 'palaestra[jobs]'"
        ) from None
    for name in ("ray.dashboard.modules", "ray._private.runtime_env"):
        _quiet(name)
    try:
        with _own_address():
            return Cluster(JobSubmissionClient(address, headers=headers), address)
    except AuthenticationError as error:
        raise _token_error(address, error) from None
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"--address {address!r} does not answer as Ray Jobs do: {error}") from None


def _own_token(address: str) -> dict[str, str] | None:
    """Return a header with this user's token for a head on this machine, None elsewhere.

    Ray's client sends it where RAY_AUTH_MODE says so. Without it, a head on the same machine asks
    for the token that Ray itself wrote; another machine gets it only when the user says so.
    """
    here = urlsplit(address).hostname in ("127.0.0.1", "localhost", "::1")
    if not here or "RAY_AUTH_MODE" in os.environ:
        return None
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    try:
        token = os.environ.get("RAY_AUTH_TOKEN") or file.read_text().strip()
    except OSError:
        return None
    return {"Authorization": f"Bearer {token}"}


def _asks_for_token(address: str) -> bool:
    """Whether the Ray dashboard at the address asks for a token.

    It is asked before Ray's own client, which has no time limit.

    Raises:
      UserError: not an address, or what answers there is no Ray dashboard.
    """
    url = urlsplit(address)
    try:
        host, port = url.hostname, url.port
    except ValueError:
        host = port = None
    if url.scheme not in ("http", "https") or not host or not port or url.path.strip("/"):
        raise UserError(f"--address {address!r}: accepted is http(s)://host:port, as {ADDRESS}.")
    try:
        socket.create_connection((host, port), timeout=_ANSWER_S).close()
    except OSError as error:
        raise NoAnswerError(
            f"no Ray cluster answers at {address} ({error}). Start one with `ray start --head`, "
            "or give the --address of its dashboard."
        ) from None
    connection = (HTTPSConnection if url.scheme == "https" else HTTPConnection)(
        host, port, timeout=_ANSWER_S
    )
    try:
        connection.request("GET", "/api/version")
        answer = connection.getresponse()
        if answer.status in (401, 403):
            return True
        if "ray_version" not in json.loads(answer.read(65536)):
            raise ValueError(f"HTTP status {answer.status}")
        return False
    except (OSError, HTTPException, ValueError, TypeError) as error:
        raise UserError(
            f"--address {address!r}: something answers, but not as the dashboard of a Ray cluster "
            f"does ({type(error).__name__}: {error})."
        ) from None
    finally:
        connection.close()


@contextmanager
def _own_address() -> Iterator[None]:
    """Hide the variables by which Ray's client would override the address that it is given."""
    names = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _quiet(package: str) -> None:
    """Silence Ray's notes on every upload and connection; each module has a level of its own."""
    for name in [n for n in logging.root.manager.loggerDict if n.startswith(package)]:
        logging.getLogger(name).setLevel(logging.WARNING)


def _token_error(address: str, error: Exception) -> UserError:
    reason = str(error).partition("\n")[0]
    return UserError(
        f"the cluster at {address} asks for a token ({reason}). Set RAY_AUTH_MODE=token; Ray reads "
        "the token of its head from ~/.ray/auth_token, or from the file RAY_AUTH_TOKEN_PATH."
    )


def _submission(job: Any) -> Submission | None:
    """Return the job as a submission, or None if it is not one of Palaestra's."""
    match = _SUBMISSION_ID.fullmatch(job.submission_id or "")
    if match is None or "run_id" not in (job.metadata or {}):
        return None
    return Submission(
        id=job.submission_id,
        run_id=match["run"],
        attempt=int(match["attempt"]),
        status=getattr(job.status, "value", job.status),
        started=job.start_time and job.start_time / 1000,
        ended=job.end_time and job.end_time / 1000,
        message=job.message or "",
        metadata=dict(job.metadata),
    )
