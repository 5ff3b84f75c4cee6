"""The lock of a run: one live writer, wherever it is; a dead one blocks nobody."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from palaestra.errors import UserError
from palaestra.runs.store.lock import STALE_S, RunLock, owner_of

_context = multiprocessing.get_context("spawn")


def hold(folder: Path, ready: Any) -> None:
    with RunLock(folder):
        ready.set()
        time.sleep(60)


def test_a_run_owned_by_a_live_process_is_refused_until_that_is_killed(tmp_path: Path) -> None:
    ready = _context.Event()
    process = _context.Process(target=hold, args=(tmp_path, ready))
    process.start()
    assert ready.wait(60)
    owner = owner_of(tmp_path)
    assert owner is not None
    assert owner["pid"] == process.pid
    with pytest.raises(UserError, match=f"written by process {process.pid} on"):
        RunLock(tmp_path).acquire()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert owner_of(tmp_path) is None
    with RunLock(tmp_path):
        assert owner_of(tmp_path) is not None
    assert owner_of(tmp_path) is None


def test_a_lock_of_another_machine_counts_while_its_heart_beats(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text(json.dumps({"host": "elsewhere", "pid": 1, "since": "today"}))
    with pytest.raises(UserError, match="process 1 on elsewhere since today"):
        RunLock(tmp_path).acquire()
    old = time.time() - 2 * STALE_S
    os.utime(lock, (old, old))
    with RunLock(tmp_path):
        assert json.loads(lock.read_text())["pid"] == os.getpid()


def test_a_half_written_lock_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text('{"host": "elsew')
    with RunLock(tmp_path):
        assert owner_of(tmp_path) is not None
