"""Segments: only what changed is written, in the memory of one, and it comes back bit for bit."""

import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from palaestra.errors import RunError
from palaestra.experience.segments import SEGMENT_BYTES, Segments
from palaestra.runs.store import format as format_module
from palaestra.runs.store.checkpoints import Checkpoints, load_checkpoint
from palaestra.runs.store.format import checkpoint_name
from palaestra.runs.store.tensors import read_tensors, write_tensors


def replay(rows: int = 23, segments: int = 5) -> Segments:
    rng = np.random.default_rng(0)
    arrays = {
        "frames": rng.integers(0, 255, (rows, 4, 3), np.uint8),
        "reward": rng.normal(size=rows).astype(np.float32),
        "done": rng.random(rows) < 0.5,
    }
    return Segments(arrays, np.zeros(segments, np.int64))


def contents(segments: Segments) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in segments.arrays.items()}


def save(store: Checkpoints, step: int, segments: Segments, **options: Any) -> Path:
    store.save(step, {"loop": {"learner": {"replay": segments, "size": 3}}}, {}, **options)
    return store.folder / checkpoint_name(step)


def files(path: Path) -> dict[str, int]:
    """Return the inode of the file of every segment."""
    return {file.name: file.stat().st_ino for file in path.glob("loop.0-*.safetensors")}


def test_segments_come_back_into_arrays_that_are_there(tmp_path: Path) -> None:
    segments = replay()
    segments.touch(2)
    save(Checkpoints(tmp_path), 7, segments)
    stored = load_checkpoint(tmp_path)["loop"]["learner"]
    assert stored["size"] == 3
    target = Segments({n: np.zeros_like(x) for n, x in segments.arrays.items()}, np.zeros(5, int))
    places = {name: array.ctypes.data for name, array in target.arrays.items()}
    stored["replay"].fill(target)
    assert contents(target) == contents(segments) == contents(stored["replay"].load())
    assert {name: array.ctypes.data for name, array in target.arrays.items()} == places
    np.testing.assert_array_equal(target.stamps, [0, 0, 1, 0, 0])


def test_a_state_that_was_never_stored_fills_arrays_too() -> None:
    segments = replay()
    segments.touch(3)
    target = Segments({n: np.zeros_like(x) for n, x in segments.arrays.items()}, np.zeros(5, int))
    segments.fill(target)
    assert contents(target) == contents(segments)
    np.testing.assert_array_equal(target.stamps, segments.stamps)


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    save(Checkpoints(tmp_path), 7, replay())
    stored = load_checkpoint(tmp_path)["loop"]["learner"]["replay"]
    for other in (replay(rows=24), replay(segments=4)):
        for leaf in (stored, replay()):
            with pytest.raises(ValueError, match="do not fit"):
                leaf.fill(other)


def test_unchanged_segments_are_links_to_the_checkpoint_before(tmp_path: Path) -> None:
    store, segments = Checkpoints(tmp_path), replay()
    first = files(save(store, 1, segments))
    segments.touch(3)
    segments.arrays["reward"][17] = 5
    path = save(store, 2, segments)
    changed = {name for name, inode in files(path).items() if inode != first[name]}
    assert changed == {"loop.0-000003.safetensors"}
    assert len(first) == 5
    assert contents(load_checkpoint(tmp_path)["loop"]["learner"]["replay"].load()) == contents(
        segments
    )


def test_pruning_leaves_linked_content_where_it_is_still_needed(tmp_path: Path) -> None:
    store, segments = Checkpoints(tmp_path, keep_last=1), replay()
    for step in range(1, 9):
        segments.touch(step % 5)
        segments.arrays["frames"][step % 5 * segments.rows] = step
        save(store, step, segments)
    assert store.names() == [checkpoint_name(8)]
    assert contents(store.read()["loop"]["learner"]["replay"].load()) == contents(segments)


def test_a_run_that_continues_links_what_it_recovered(tmp_path: Path) -> None:
    segments = replay()
    first = files(save(Checkpoints(tmp_path), 1, segments))
    store, again = Checkpoints(tmp_path), replay()
    found = store.recover([None])  # type: ignore[list-item]
    assert found is not None
    found[1]["loop"]["learner"]["replay"].fill(again)
    again.touch(0)
    second = files(save(store, 2, again))
    assert sum(first[name] == inode for name, inode in second.items()) == 4


def test_nothing_is_linked_to_what_the_state_did_not_come_from(tmp_path: Path) -> None:
    first = files(save(Checkpoints(tmp_path), 1, replay()))
    second = files(save(Checkpoints(tmp_path), 2, replay()))
    assert not {*first.values()} & {*second.values()}


@pytest.mark.parametrize("trouble", ["no links", "gone", "cut"])
def test_where_links_fail_the_content_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    store, segments = Checkpoints(tmp_path), replay()
    path = save(store, 1, segments)

    def refuse(*_: Any) -> None:
        raise OSError(1, "Operation not permitted")

    if trouble == "no links":
        monkeypatch.setattr(os, "link", refuse)
    elif trouble == "gone":
        shutil.rmtree(path)
    else:
        file = path / "loop.0-000001.safetensors"
        file.write_bytes(file.read_bytes()[:-1])
    save(store, 2, segments)
    loaded = Checkpoints(tmp_path).read()["loop"]["learner"]["replay"].load()
    assert contents(loaded) == contents(segments)


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_segment_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    file = save(Checkpoints(tmp_path), 1, replay()) / "loop.0-000003.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
    file.unlink() if damage == "remove" else file.write_bytes(content[: -(damage == "cut") or None])
    with pytest.raises(ValueError, match=r"loop\.0-000003\.safetensors: missing or altered"):
        load_checkpoint(tmp_path)


class SlowWriter:
    """Makes the writing of segments wait for a sign, and notes their order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started, self.proceed = threading.Event(), threading.Event()
        self.order: list[str] = []
        write = format_module._write_arrays

        def slow(path: Path, arrays: Any) -> Any:
            self.started.set()
            assert self.proceed.wait(60)
            self.order.append(path.name)
            return write(path, arrays)

        monkeypatch.setattr(format_module, "_write_arrays", slow)


def test_a_checkpoint_in_the_background_holds_what_was_there_when_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, segments = Checkpoints(tmp_path), replay()
    before, writer = contents(segments), SlowWriter(monkeypatch)
    save(store, 1, segments, wait=False)
    assert writer.started.wait(60)
    threading.Timer(0.05, writer.proceed.set).start()
    for segment in (3, 1, 3):  # waits until that segment is written, then changes it
        segments.touch(segment)
        segments.arrays["reward"][segment * segments.rows] += 1
    store.wait()
    assert writer.order.index("loop.0-000003.safetensors") <= 1
    monkeypatch.undo()
    stored = load_checkpoint(tmp_path)["loop"]["learner"]["replay"]
    assert contents(stored.load()) == before
    np.testing.assert_array_equal(stored.stamps, 0)
    np.testing.assert_array_equal(segments.stamps, [0, 1, 0, 2, 0])
    second = save(store, 2, segments)
    assert contents(load_checkpoint(tmp_path)["loop"]["learner"]["replay"].load()) == contents(
        segments
    )
    assert len({*files(second).values()} & {*files(tmp_path / checkpoint_name(1)).values()}) == 3


def test_a_checkpoint_that_fails_lets_go_of_the_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, segments = Checkpoints(tmp_path), replay()

    def full(path: Path, arrays: Any) -> Any:
        time.sleep(0.05)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(format_module, "_write_arrays", full)
    save(store, 1, segments, wait=False)
    segments.touch(4)
    with pytest.raises(RunError, match="no space is left"):
        store.wait()
    with pytest.raises(TypeError, match="neither an array nor"):
        store.save(2, {"loop": {"replay": segments, "bad": object()}}, {})
    segments.touch(4)
    assert segments.stamps[4] == 2


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 40),
    steps=st.lists(st.lists(st.integers(0, 10**6), max_size=6), min_size=1, max_size=5),
    count=st.integers(1, 8),
)
def test_any_sequence_of_writes_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: int, steps: list[list[int]], count: int
) -> None:
    count = -(-rows // -(-rows // min(count, rows)))  # no segment without a row
    store, segments = Checkpoints(tmp_path_factory.mktemp("any")), replay(rows, count)
    for step, writes in enumerate(steps):
        for write in writes:
            row = np.array([write % rows, (7 * write) % rows])
            segments.touch_rows(row)
            segments.arrays["reward"][row] += write
            segments.arrays["frames"][row] ^= write % 251
        save(store, step, segments, wait=False)
    store.wait()
    stored = store.read()["loop"]["learner"]["replay"].load()
    assert contents(stored) == contents(segments)
    np.testing.assert_array_equal(stored.stamps, segments.stamps)


def test_segments_have_about_their_size_and_no_empty_one() -> None:
    segments = Segments({"x": np.zeros((10 * SEGMENT_BYTES + 8) // 8)})
    assert len(segments.stamps) == 11
    assert segments.rows * 8 <= SEGMENT_BYTES
    assert len(Segments({"x": np.zeros((0, 3))}).stamps) == 1
    with pytest.raises(TypeError, match="do not fill 6 segments"):
        replay(rows=10, segments=6)
    with pytest.raises(TypeError, match="equal length"):
        Segments({"x": np.zeros(3), "y": np.zeros(4)})
    with pytest.raises(TypeError, match="C order"):
        Segments({"x": np.zeros((3, 4)).T})


def test_files_of_arrays_are_what_the_package_safetensors_reads(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    types = ["bool", "u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "u8", "i8", "f8"]
    arrays = {t: rng.normal(size=(3, 5)).astype(t) for t in types} | {
        "empty": np.zeros((0, 2)),
        "scalar": np.array(1.5),
    }
    checksum = write_tensors(tmp_path / "x", arrays)
    assert checksum["bytes"] == (tmp_path / "x").stat().st_size
    target = {name: np.empty_like(array) for name, array in arrays.items()}
    read_tensors(tmp_path / "x", target)
    for found in (load_file(tmp_path / "x"), target):
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype
    with pytest.raises(ValueError, match="other arrays"):
        read_tensors(tmp_path / "x", target | {"more": np.zeros(2)})
    with pytest.raises(TypeError, match="not a type that can be stored"):
        write_tensors(tmp_path / "y", {"x": np.zeros(2, "M8[s]")})


def test_the_manifest_lists_every_segment_with_its_checksum(tmp_path: Path) -> None:
    manifest = json.loads((save(Checkpoints(tmp_path), 1, replay()) / "MANIFEST.json").read_text())
    names = {name for name in manifest["files"] if name.startswith("loop.0-")}
    assert len(names) == 5
    assert manifest["segments"]["loop"][0]["path"] == "/learner/replay"
