"""Checkpoints: what was saved comes back, what was altered is refused by name."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from palaestra.errors import UserError
from palaestra.runs.checkpoint import load_checkpoint, save_checkpoint

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
    return save_checkpoint(folder, step, PARTS, {"run_id": "x"})


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
    with pytest.raises(UserError, match="version 99 is newer than 1"):
        load_checkpoint(tmp_path)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint"):
        load_checkpoint(tmp_path)
