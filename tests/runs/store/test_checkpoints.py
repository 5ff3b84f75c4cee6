"""Checkpoints: what was saved comes back, what was altered is refused by name."""

import errno
import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from palaestra.errors import RunError, UserError
from palaestra.runs.store.checkpoints import Checkpoints, load_checkpoint
from palaestra.runs.store.format import checkpoint_name

PARTS = {
    "learner": {
        "weights": {"layer.0": torch.arange(6.0).reshape(2, 3), "scalar": torch.tensor(3.0)},
        "rng": np.random.default_rng(0).bit_generator.state,
        "steps": 12,
        "empty": np.zeros((0, 4), np.int64),
    },
    "counters": {"names": ("a", "b"), "flag": True, "nothing": None, "bool": np.array([True])},
}


def save(folder: Path, step: int = 7) -> Path:
    Checkpoints(folder).save(step, PARTS, {"run_id": "x", "config_hash": "hash"})
    return folder / checkpoint_name(step)


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    save(tmp_path)
    loaded = load_checkpoint(tmp_path)
    np.testing.assert_array_equal(loaded["learner"]["weights"]["layer.0"], [[0, 1, 2], [3, 4, 5]])
    assert loaded["learner"]["weights"]["scalar"].shape == ()
    assert loaded["learner"]["rng"] == PARTS["learner"]["rng"]
    assert loaded["learner"]["empty"].shape == (0, 4)
    assert loaded["counters"]["names"] == ("a", "b")
    assert loaded["counters"]["nothing"] is None
    assert loaded["counters"]["bool"].dtype == bool


def test_only_the_wanted_parts_are_read(tmp_path: Path) -> None:
    save(tmp_path)
    assert set(load_checkpoint(tmp_path, only=("counters",))) == {"counters"}


def test_the_latest_checkpoint_is_read(tmp_path: Path) -> None:
    save(tmp_path, 7)
    save(tmp_path, 8)
    assert (tmp_path / "latest").read_text() == "step-000000000008"
    assert not list(tmp_path.glob(".tmp*"))


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    file = save(tmp_path) / "learner.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
        file.write_bytes(content)
    elif damage == "cut":
        file.write_bytes(content[:-1])
    else:
        file.unlink()
    with pytest.raises(UserError, match=r"learner\.safetensors: missing or altered"):
        load_checkpoint(tmp_path)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    manifest = save(tmp_path) / "MANIFEST.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"schema_version": 99}))
    with pytest.raises(UserError, match="version 99 is newer than 2"):
        load_checkpoint(tmp_path)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint"):
        load_checkpoint(tmp_path)


def test_a_background_save_holds_what_was_there_when_it_began(tmp_path: Path) -> None:
    store, array = Checkpoints(tmp_path), np.zeros(1000)
    for step in range(5):
        array[:] = step
        store.save(step, {"state": {"x": array}}, {}, wait=False)
        array[:] = -1
    store.wait()
    assert store.names() == ["step-000000000003", "step-000000000004"]
    np.testing.assert_array_equal(store.read()["state"]["x"], np.full(1000, 4.0))


def test_the_last_the_best_and_every_third_are_kept(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, keep_last=2, keep_every=3)
    for number in range(1, 9):
        store.save(number, PARTS, {}, number=number, best=number == 4)
    assert [int(name[5:]) for name in store.names()] == [3, 4, 6, 7, 8]
    assert store.best == "step-000000000004"
    assert store.step("best") == 4


def test_a_broken_newest_one_is_set_aside_with_a_warning_for_an_older_one(tmp_path: Path) -> None:
    for step in (7, 8):
        path = save(tmp_path, step)
    (path / "learner.json").write_text("{")
    with pytest.warns(UserWarning, match=r"learner\.json: missing or altered.*older step-0*7"):
        found = Checkpoints(tmp_path).recover(["hash"])
    assert found is not None
    assert found[0] == "step-000000000007"
    assert Checkpoints(tmp_path).names() == ["step-000000000007"]
    assert (tmp_path / "broken-step-000000000008-1" / "learner.json").is_file()


def test_reading_a_broken_one_offers_the_whole_ones(tmp_path: Path) -> None:
    for step in (7, 8):
        path = save(tmp_path, step)
    (path / "learner.json").write_text("{")
    with pytest.raises(UserError, match=r"Whole ones: step-000000000007\."):
        load_checkpoint(tmp_path)
    assert load_checkpoint(tmp_path, name="step-000000000007")["learner"]["steps"] == 12
    with pytest.raises(UserError, match=r"no checkpoint 'step-1'; accepted: step-0*7, step-0*8"):
        load_checkpoint(tmp_path, name="step-1")


def test_where_none_is_whole_nothing_is_changed(tmp_path: Path) -> None:
    (save(tmp_path) / "MANIFEST.json").write_text("not JSON")
    with pytest.raises(UserError, match="none of the checkpoints is whole"):
        Checkpoints(tmp_path).recover(["hash"])
    assert Checkpoints(tmp_path).names() == ["step-000000000007"]


def test_a_foreign_checkpoint_is_refused_by_the_run_it_belongs_to(tmp_path: Path) -> None:
    save(tmp_path)
    with pytest.raises(UserError, match=r"another run \(run id 'x', configuration hash\)"):
        Checkpoints(tmp_path).recover(["other"])


def test_a_newer_format_is_not_passed_over_for_an_older_one(tmp_path: Path) -> None:
    for step in (7, 8):
        path = save(tmp_path, step)
    manifest = path / "MANIFEST.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"schema_version": 99}))
    with pytest.raises(UserError, match="version 99 is newer than 2"):
        Checkpoints(tmp_path).recover(["hash"])


def disguise(path: Path, file: str, content: bytes) -> None:
    """Put other content into a file of a checkpoint, with a manifest that agrees."""
    (path / file).write_bytes(content)
    manifest = json.loads((path / "MANIFEST.json").read_text())
    digest = hashlib.sha256(content).hexdigest()
    manifest["files"][file] = {"bytes": len(content), "sha256": digest}
    (path / "MANIFEST.json").write_text(json.dumps(manifest))


class Bomb:
    """What a pickle would run when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("exploded"),))


def test_a_pickle_in_place_of_safetensors_is_refused_and_never_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    disguise(save(tmp_path / "run"), "learner.safetensors", pickle.dumps(Bomb()))
    with pytest.raises(UserError, match=r"learner\.safetensors: safetensors .* .no pickle"):
        load_checkpoint(tmp_path / "run")
    assert not Path("exploded").exists()


@pytest.mark.parametrize("name", ["../../secret.json", "/etc/passwd", "a/b.json", "x.pkl"])
def test_a_hostile_file_name_in_the_manifest_is_refused(tmp_path: Path, name: str) -> None:
    path = save(tmp_path)
    manifest = json.loads((path / "MANIFEST.json").read_text())
    manifest["files"][name] = {"bytes": 0, "sha256": ""}
    (path / "MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="not a file of a checkpoint"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("operation", range(1, 9))
def test_a_full_disk_while_saving_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: int
) -> None:
    save(tmp_path, 7)
    count = 0

    def fsync(handle: int) -> None:
        nonlocal count
        count += 1
        if count >= operation:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", fsync)
    with pytest.raises(RunError, match="no space is left on the disk") as caught:
        save(tmp_path, 8)
    monkeypatch.undo()
    assert "step-000000000008" in str(caught.value)
    assert load_checkpoint(tmp_path, name="step-000000000007")["learner"]["steps"] == 12
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize(
    ("state", "message"),
    [({1: 2}, "keys have to be strings"), ({"x": object()}, "object is neither an array nor")],
)
def test_state_that_could_not_be_restored_is_a_mistake(
    tmp_path: Path, state: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        Checkpoints(tmp_path).save(7, {"learner": state}, {})
