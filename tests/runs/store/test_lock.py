"""The lock of a run: one live writer, wherever it is; a dead one blocks nobody."""

import ctypes
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


def fork_and_wait(folder: Path, ready: Any, child: Any, known_to_python: bool) -> None:
    """Hold the lock, fork a child that outlives this process, and wait to be killed."""
    with RunLock(folder):
        fork = os.fork if known_to_python else ctypes.CDLL(None).fork
        pid = fork()
        if pid == 0:
            time.sleep(120)
            os._exit(0)
        child.value = pid
        ready.set()
        time.sleep(120)


@pytest.mark.parametrize("known_to_python", [True, False])
def test_a_child_that_outlives_a_killed_owner_does_not_keep_the_run(
    tmp_path: Path, known_to_python: bool
) -> None:
    ready, child = _context.Event(), _context.Value("i", 0)
    process = _context.Process(target=fork_and_wait, args=(tmp_path, ready, child, known_to_python))
    process.start()
    assert ready.wait(60)
    try:
        with pytest.raises(UserError, match=f"written by process {process.pid} on"):
            RunLock(tmp_path).acquire()
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert owner_of(tmp_path) is None
        with RunLock(tmp_path):
            owner = owner_of(tmp_path)
            assert owner is not None
            assert owner["pid"] == os.getpid()
            with pytest.raises(UserError, match=f"written by process {os.getpid()} on"):
                RunLock(tmp_path).acquire()
        assert owner_of(tmp_path) is None
    finally:
        os.kill(child.value, signal.SIGKILL)


def test_a_forked_child_that_leaves_the_block_does_not_let_go_of_the_run(tmp_path: Path) -> None:
    lock = RunLock(tmp_path).acquire()
    pid = os.fork()
    if pid == 0:
        lock.release()
        os._exit(0)
    os.waitpid(pid, 0)
    owner = owner_of(tmp_path)
    assert owner is not None
    assert owner["pid"] == os.getpid()
    lock.release()


def test_another_process_with_the_number_of_a_dead_owner_is_not_the_owner(tmp_path: Path) -> None:
    lock = RunLock(tmp_path).acquire()
    owner = json.loads(lock.path.read_text())
    lock.path.write_text(json.dumps(owner | {"process": owner["process"] + "1"}))
    assert owner_of(tmp_path) is None
    with RunLock(tmp_path):
        assert json.loads(lock.path.read_text()) | {"since": 0} == owner | {"since": 0}


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(UserError, match="cannot be written"):
        RunLock(tmp_path / "run").acquire()
    assert (tmp_path / "victim").read_text() == "precious"


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
