"""One writer for each run: a lock file with host, process and heartbeat."""

import errno
import fcntl
import json
import os
import socket
import threading
import time
import weakref
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from palaestra.errors import UserError

HEARTBEAT_S = 10
"""Seconds between two signs of life."""

STALE_S = 90
"""Seconds without a sign of life after which the owner on another machine counts as dead."""

_held: "weakref.WeakSet[RunLock]" = weakref.WeakSet()


class RunLock:
    """Holds a run folder for this process.

    On one machine the kernel holds the lock and lets go of it when the process ends, however it
    ends. A child that was forked meanwhile (an environment may fork) would hold it on: it closes
    the file; and where a library forked without Python's knowledge, the lock of an owner that is
    dead is replaced. Between machines that share the folder, the time of the file's last change
    tells whether its owner lives.

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
          UserError: a live process owns the run, or the folder cannot be written.
        """
        try:
            guard = os.open(self.path.parent, os.O_RDONLY)
            try:
                _lock(guard, wait=True)  # one after the other, also where a lock is replaced
                self._file = self._take()
            finally:
                os.close(guard)
        except OSError as error:
            raise UserError(
                f"run folder {self.path.parent} cannot be written: {error}. Training and "
                "evaluation write to it: copy it to a place where you may, or change its rights."
            ) from error
        _held.add(self)
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
        _held.discard(self)

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _take(self) -> int:
        handle = _open(self.path)
        try:
            locked = _lock(handle)
            owner = _read(handle)
            if not locked and _is_dead(owner):
                handle, old = self._replace(), handle
                os.close(old)
            elif not locked or (owner and self._lives_elsewhere(owner)):
                raise self._owned(owner)
            _claim(handle)
        except BaseException:
            os.close(handle)
            raise
        return handle

    def _replace(self) -> int:
        """Put another file in the place of one that a process holds for its dead parent."""
        new = self.path.with_name(".lock")
        new.unlink(missing_ok=True)
        handle = _open(new)
        _lock(handle)
        new.replace(self.path)
        return handle

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            try:
                os.utime(self.path)
            except OSError:  # the folder was removed; whoever writes to it next will say so
                return

    def _forget(self) -> None:
        """In a forked child: the run belongs to the parent."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

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


def _forget_all() -> None:
    for lock in list(_held):
        lock._forget()


os.register_at_fork(after_in_child=_forget_all)


def _open(path: Path) -> int:
    # Never through a link: a folder from elsewhere must not name a file outside of it.
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)


def _claim(handle: int) -> None:
    owner = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process": _process(os.getpid()),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(owner).encode(), 0)


def _process(pid: int) -> str | None:
    """Return what tells a process from any other: its namespace and when it began.

    None where there is no such process, or the system does not tell.
    """
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return f"{boot}-{namespace}-{'dead' if fields[0] in 'ZX' else fields[19]}"


def _is_dead(owner: dict[str, Any]) -> bool:
    """Whether the owner ran where this process runs, and no longer does."""
    noted, ours, pid = owner.get("process"), _process(os.getpid()), owner.get("pid")
    if not isinstance(noted, str) or ours is None or type(pid) is not int:
        return False
    here = ours.rpartition("-")[0] == noted.rpartition("-")[0]
    return here and noted != _process(pid)


def _lock(handle: int, wait: bool = False) -> bool:
    """Take the kernel's lock; a file system without locks leaves it to the heartbeat."""
    for _ in range(5):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
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
            held = error.errno in (errno.EWOULDBLOCK, errno.EACCES) and not _is_dead(owner)
            return owner if held else None
        return owner if owner and lock._lives_elsewhere(owner) else None
    finally:
        os.close(handle)


def _read(handle: int) -> dict[str, Any]:
    try:
        owner = json.loads(os.pread(handle, 4096, 0) or b"{}")
    except ValueError:  # half written when its owner was killed
        return {}
    return owner if isinstance(owner, dict) else {}
