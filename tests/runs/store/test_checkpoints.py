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
from palaestra.runs.store.format import BrokenCheckpointError, checkpoint_name, read_checkpoint

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


def forge(path: Path, **values: Any) -> None:
    """Change the manifest of a checkpoint, with a checksum that agrees."""
    manifest = json.loads((path / "MANIFEST.json").read_text()) | values
    del manifest["checksum"]
    text = json.dumps(manifest, sort_keys=True)
    manifest["checksum"] = hashlib.sha256(text.encode()).hexdigest()
    (path / "MANIFEST.json").write_text(json.dumps(manifest))


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
    forge(save(tmp_path), schema_version=99)
    with pytest.raises(UserError, match="version 99 is newer than 3"):
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
    forge(path, schema_version=99)
    with pytest.raises(UserError, match="version 99 is newer than 3"):
        Checkpoints(tmp_path).recover(["hash"])


def disguise(path: Path, file: str, content: bytes) -> None:
    """Put other content into a file of a checkpoint, with a manifest that agrees."""
    (path / file).write_bytes(content)
    files = json.loads((path / "MANIFEST.json").read_text())["files"]
    digest = hashlib.sha256(content).hexdigest()
    forge(path, files=files | {file: {"bytes": len(content), "sha256": digest}})


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
    files = json.loads((path / "MANIFEST.json").read_text())["files"]
    forge(path, files=files | {name: {"bytes": 0, "sha256": ""}})
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


def test_text_comes_back_as_it_was(tmp_path: Path) -> None:
    text = np.array([["a move", "\u00e9"], ["", "x" * 40]])
    words = np.array(["one", "three"], object)
    Checkpoints(tmp_path).save(7, {"state": {"text": text, "words": words}}, {})
    loaded = load_checkpoint(tmp_path)["state"]
    np.testing.assert_array_equal(loaded["text"], text)
    assert loaded["text"].dtype == text.dtype
    assert loaded["words"].tolist() == ["one", "three"]
    assert loaded["words"].dtype == object


def test_arrays_that_two_parts_share_are_stored_once_and_read_apart(tmp_path: Path) -> None:
    weights = {f"layer.{i}": np.random.default_rng(i).normal(size=(50, 40)) for i in range(3)}
    weights["bias"] = np.array([-0.0, np.nan])
    learner = {"policy": weights, "moments": {n: np.full_like(w, 2) for n, w in weights.items()}}
    Checkpoints(tmp_path).save(7, {"actor": weights, "loop": {"learner": learner}}, {})
    path = tmp_path / checkpoint_name(7)
    assert (path / "loop.safetensors").stat().st_size < 1.1 * (
        sum(w.nbytes for w in weights.values())
    )
    for only in (("actor",), ("loop",), None):
        loaded = load_checkpoint(tmp_path, only)
        for name, weight in weights.items():
            if only != ("loop",):
                assert loaded["actor"][name].tobytes() == weight.tobytes()
            if only != ("actor",):
                assert loaded["loop"]["learner"]["policy"][name].tobytes() == weight.tobytes()
                assert (loaded["loop"]["learner"]["moments"][name] == 2).all()
    loaded["actor"]["layer.0"][:] = 0
    assert loaded["loop"]["learner"]["policy"]["layer.0"].any()


def test_what_acts_is_read_without_the_rest(tmp_path: Path) -> None:
    actor = {"w": np.arange(5.0)}
    Checkpoints(tmp_path).save(7, {"actor": actor, "loop": {"x": np.ones(3), **actor}}, {})
    (tmp_path / checkpoint_name(7) / "loop.safetensors").unlink()
    np.testing.assert_array_equal(load_checkpoint(tmp_path, ("actor",))["actor"]["w"], actor["w"])


def test_the_best_is_named_in_the_checkpoints_themselves(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, keep_last=1)
    store.save(1, PARTS, {"config_hash": "hash"}, best=True)
    store.save(2, PARTS, {"config_hash": "hash"})
    (tmp_path / "best").unlink()  # as if killed between the checkpoint and the pointer
    assert Checkpoints(tmp_path).best == checkpoint_name(1)
    again = Checkpoints(tmp_path, keep_last=1)
    again.recover(["hash"])
    assert (tmp_path / "best").read_text() == checkpoint_name(1)
    again.save(3, PARTS, {"config_hash": "hash"})
    assert again.names() == [checkpoint_name(1), checkpoint_name(3)]


def test_no_flipped_bit_of_a_manifest_is_taken_for_anything_but_damage(tmp_path: Path) -> None:
    path = save(tmp_path)
    content = (path / "MANIFEST.json").read_bytes()
    for bit in range(0, 8 * len(content), 3):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        (path / "MANIFEST.json").write_bytes(flipped)
        with pytest.raises(BrokenCheckpointError):
            read_checkpoint(path)
    (path / "MANIFEST.json").write_bytes(content)
    assert read_checkpoint(path)["learner"]["steps"] == 12


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 0},
        {"schema_version": True},
        {"schema_version": "3"},
        {"schema_version": 2},
        {"schema_version": 1},
        {"files": {}},
        {"files": []},
        {"files": {"learner.json": None}},
        {"step": 9},
        {"segments": {"learner": 3}},
        {"checksum": None},
    ],
)
def test_an_odd_manifest_is_a_broken_one(tmp_path: Path, change: dict[str, Any]) -> None:
    for step in (7, 8):
        path = save(tmp_path, step) / "MANIFEST.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.warns(UserWarning, match="set aside"):
        found = Checkpoints(tmp_path).recover(["hash"])
    assert found is not None
    assert found[0] == checkpoint_name(7)


@pytest.mark.parametrize(
    "content", ["[" * 100_000, "", "null", "{}", '{"schema_version": 3}', "\xff"]
)
def test_a_manifest_that_is_none_is_a_broken_one(tmp_path: Path, content: str) -> None:
    for step in (7, 8):
        path = save(tmp_path, step) / "MANIFEST.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.warns(UserWarning, match="set aside"):
        found = Checkpoints(tmp_path).recover(["hash"])
    assert found is not None
    assert found[0] == checkpoint_name(7)


@pytest.mark.parametrize("skeleton", ["[[1]]", '{"__array__": "/nowhere"}', '{"__segments__": 4}'])
def test_parts_that_refer_to_nothing_are_broken(tmp_path: Path, skeleton: str) -> None:
    for step in (7, 8):
        path = save(tmp_path, step)
    disguise(path, "learner.json", skeleton.encode())
    if skeleton == "[[1]]":  # plain data that fits every format
        assert load_checkpoint(tmp_path)["learner"] == [[1]]
        return
    with pytest.warns(UserWarning, match="set aside"):
        found = Checkpoints(tmp_path).recover(["hash"])
    assert found is not None
    assert found[0] == checkpoint_name(7)


def test_an_older_broken_manifest_does_not_end_training(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, keep_last=1, keep_every=2)
    for number in range(1, 7):
        store.save(number, PARTS, {}, number=number)
        if number == 4:
            (tmp_path / checkpoint_name(2) / "MANIFEST.json").write_text('{"number": ')
    assert [int(name[5:]) for name in store.names()] == [2, 4, 6]


def test_checkpoints_without_a_number_are_no_milestones(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, keep_last=1, keep_every=2)
    for step, number in ((1, 1), (2, None), (3, 2), (4, None), (5, 3), (6, 4), (7, None)):
        store.save(step, PARTS, {}, number=number)
    assert [int(name[5:]) for name in store.names()] == [3, 6, 7]
