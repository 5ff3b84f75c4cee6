"""One writer for each run: a lock file with host, process and heartbeat."""

import errno
import fcntl
import json
import os
import socket
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from palaestra.errors import UserError

HEARTBEAT_S = 10
"""Seconds between two signs of life."""

STALE_S = 90
"""Seconds without a sign of life after which the owner on another machine counts as dead."""


class RunLock:
    """Holds a run folder for this process.

    On one machine the kernel holds the lock and lets go of it when the process ends, however it
    ends. Between machines that share the folder, the time of the file's last change tells whether
    its owner lives.

    Args:
      folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lock"
        self._file: int | None = None
        self._stop = threading.Event()

    def acquire(self) -> Self:
        """Take the lock.

        Raises:
          UserError: a live process owns the run.
        """
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _lock(handle):
                raise self._owned(_read(handle))
            owner = _read(handle)
            if owner and self._lives_elsewhere(owner):
                raise self._owned(owner)
            self._claim(handle)
        except BaseException:
            os.close(handle)
            raise
        self._file = handle
        threading.Thread(target=self._beat, name="lock", daemon=True).start()
        return self

    def release(self) -> None:
        """Let go of the run."""
        if self._file is None:
            return
        self._stop.set()
        os.ftruncate(self._file, 0)
        os.close(self._file)
        self._file = None

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _claim(self, handle: int) -> None:
        owner = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(owner).encode(), 0)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            try:
                os.utime(self.path)
            except OSError:  # the folder was removed; whoever writes to it next will say so
                return

    def _lives_elsewhere(self, owner: dict[str, Any]) -> bool:
        if owner.get("host") == socket.gethostname():
            return False  # the kernel would have refused the lock
        return time.time() - self.path.stat().st_mtime < STALE_S

    def _owned(self, owner: dict[str, Any]) -> UserError:
        return UserError(
            f"run {self.path.parent.name!r} is being written by process {owner.get('pid')} on "
            f"{owner.get('host')} since {owner.get('since')}; wait until it ends, or stop it with "
            f"`palaestra stop {self.path.parent.name}`. Nothing was changed."
        )


def _lock(handle: int) -> bool:
    """Take the kernel's lock; a file system without locks leaves it to the heartbeat."""
    for _ in range(5):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return True
        time.sleep(0.05)  # somebody may just be looking who owns it
    return False


def owner_of(folder: Path) -> dict[str, Any] | None:
    """Return host, pid and since of the live process that writes a run, or None."""
    path = folder / "lock"
    if not path.is_file():
        return None
    lock = RunLock(folder)
    handle = os.open(path, os.O_RDONLY)
    try:
        owner = _read(handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return owner if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
        return owner if owner and lock._lives_elsewhere(owner) else None
    finally:
        os.close(handle)


def _read(handle: int) -> dict[str, Any]:
    try:
        owner = json.loads(os.pread(handle, 4096, 0) or b"{}")
    except ValueError:  # half written when its owner was killed
        return {}
    return owner if isinstance(owner, dict) else {}
