"""Checkpoints: nested state as safetensors and JSON, written as one unit, never pickled."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from palaestra.errors import UserError

SCHEMA_VERSION = 1

_ARRAY, _TUPLE = "__array__", "__tuple__"


def save_checkpoint(
    folder: Path, step: int, parts: dict[str, Any], identity: dict[str, Any]
) -> Path:
    """Write `parts` as `folder/step-<12 digits>` and return its path.

    The files are written to a temporary folder, flushed to disk, listed with their checksums and
    only then moved into place, so a reader sees a complete checkpoint or none.

    Args:
      folder: the run's `checkpoints` folder.
      step: agent steps, names the checkpoint.
      parts: name -> nested dict of arrays, tensors, numbers, strings; each part is its own files.
      identity: stored in the manifest, e.g. run id and configuration hash.
    """
    temporary = folder / f".tmp-{step:012d}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, part in parts.items():
        _write_part(temporary, name, part)
    files = {file.name: _checksum(file) for file in sorted(temporary.iterdir())}
    manifest = {"schema_version": SCHEMA_VERSION, "step": step, **identity, "files": files}
    _write(temporary / "MANIFEST.json", json.dumps(manifest, indent=1).encode())
    _sync_folder(temporary)
    target = folder / f"step-{step:012d}"
    if target.exists():
        shutil.rmtree(target)
    temporary.replace(target)
    _sync_folder(folder)
    pointer = folder / ".latest"
    _write(pointer, target.name.encode())
    pointer.replace(folder / "latest")
    _sync_folder(folder)
    return target


def load_checkpoint(folder: Path, only: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Return the parts of the latest checkpoint below `folder`, after checking every file.

    Args:
      folder: the run's `checkpoints` folder.
      only: names of the parts to read; None reads all.

    Raises:
      UserError: no checkpoint, a missing or altered file, or a newer format than this one.
    """
    pointer = folder / "latest"
    if not pointer.is_file():
        raise UserError(f"{folder}: no checkpoint here; expected a file 'latest' that names one.")
    path = folder / pointer.read_text().strip()
    if path.parent != folder or not (path / "MANIFEST.json").is_file():
        raise UserError(f"{path}: no checkpoint here; expected a folder with MANIFEST.json.")
    manifest = json.loads((path / "MANIFEST.json").read_text())
    if manifest["schema_version"] > SCHEMA_VERSION:
        raise UserError(
            f"{path}: format version {manifest['schema_version']} is newer than "
            f"{SCHEMA_VERSION}, the newest that this version of Palaestra reads."
        )
    for name, expected in manifest["files"].items():
        if not (path / name).is_file() or _checksum(path / name) != expected:
            raise UserError(f"{path / name}: missing or altered since the checkpoint was written.")
    names = [file.removesuffix(".json") for file in manifest["files"] if file.endswith(".json")]
    return {name: _read_part(path, name) for name in names if only is None or name in only}


def _write_part(folder: Path, name: str, part: Any) -> None:
    from safetensors.numpy import save

    arrays: dict[str, np.ndarray] = {}
    skeleton = _split(part, "", arrays)
    _write(folder / f"{name}.json", json.dumps(skeleton).encode())
    _write(folder / f"{name}.safetensors", save(arrays))


def _read_part(folder: Path, name: str) -> Any:
    from safetensors.numpy import load_file

    arrays = load_file(folder / f"{name}.safetensors")
    return _join(json.loads((folder / f"{name}.json").read_text()), arrays)


def _split(tree: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """Return `tree` with its arrays replaced by references, and move them into `arrays`."""
    if isinstance(tree, dict):
        return {key: _split(value, f"{path}/{key}", arrays) for key, value in tree.items()}
    if isinstance(tree, tuple | list):
        return {_TUPLE: [_split(value, f"{path}/{i}", arrays) for i, value in enumerate(tree)]}
    if isinstance(tree, np.generic):
        return tree.item()
    if isinstance(tree, np.ndarray) or hasattr(tree, "detach"):
        array = np.asarray(tree.detach().cpu() if hasattr(tree, "detach") else tree)
        arrays[path] = np.ascontiguousarray(array).reshape(array.shape)
        return {_ARRAY: path}
    return tree


def _join(tree: Any, arrays: dict[str, np.ndarray]) -> Any:
    if not isinstance(tree, dict):
        return tree
    if _ARRAY in tree:
        return arrays[tree[_ARRAY]]
    if _TUPLE in tree:
        return tuple(_join(value, arrays) for value in tree[_TUPLE])
    return {key: _join(value, arrays) for key, value in tree.items()}


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _checksum(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
