"""The format of a checkpoint: nested state as safetensors and JSON, one unit, never pickled."""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from palaestra.errors import RunError, UserError

SCHEMA_VERSION = 2

_ARRAY, _TUPLE = "__array__", "__tuple__"
_FILE = re.compile(r"[a-z_]+\.(json|safetensors)")


class BrokenCheckpointError(UserError):
    """A file of the checkpoint is missing, altered or not what it should be."""


def checkpoint_name(step: int) -> str:
    """Return the name of the checkpoint of an agent step."""
    return f"step-{step:012d}"


def snapshot(parts: dict[str, Any]) -> dict[str, tuple[Any, dict[str, np.ndarray]]]:
    """Return copies of the parts, each as plain JSON data and named arrays.

    What was copied no longer changes, so it can be written while training goes on.
    """
    found = {}
    for name, part in parts.items():
        arrays: dict[str, np.ndarray] = {}
        found[name] = (_split(part, "", arrays), arrays)
    return found


def write_checkpoint(
    folder: Path,
    step: int,
    parts: dict[str, tuple[Any, dict[str, np.ndarray]]],
    identity: dict[str, Any],
    flush: Sequence[Path] = (),
) -> Path:
    """Write a snapshot as `folder/step-<12 digits>` and return its path.

    The files are written to a temporary folder, flushed to disk, listed with their checksums and
    only then moved into place, so a reader sees a complete checkpoint or none.

    Args:
      folder: the run's `checkpoints` folder.
      step: agent steps, names the checkpoint.
      parts: what `snapshot` returned; each part is its own files.
      identity: stored in the manifest, e.g. run id and configuration hash.
      flush: files that the checkpoint refers to; they reach the disk before it does.

    Raises:
      RunError: the disk is full or cannot be written; what was there before is untouched.
    """
    target = folder / checkpoint_name(step)
    temporary = folder / f".tmp-{step:012d}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        files: dict[str, Any] = {}
        for name, (skeleton, arrays) in parts.items():
            files |= _write_part(temporary, name, skeleton, arrays)
        manifest = {"schema_version": SCHEMA_VERSION, "step": step, **identity, "files": files}
        _write(temporary / "MANIFEST.json", json.dumps(manifest, indent=1).encode())
        _sync_folder(temporary)
        for path in flush:
            _sync(path)
        if target.exists():  # only what is broken is ever written again
            target.replace(folder / f".broken-{target.name}-{os.getpid()}")
        temporary.replace(target)
        _sync_folder(folder)
        point_to(folder / "latest", target.name)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise _unwritable(target, error) from error
    return target


def point_to(pointer: Path, content: str) -> None:
    """Write a small file atomically."""
    temporary = pointer.with_name(f".{pointer.name}")
    _write(temporary, content.encode())
    temporary.replace(pointer)
    _sync_folder(pointer.parent)


def _unwritable(target: Path, error: OSError) -> RunError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    reason = "no space is left on the disk" if full else str(error)
    return RunError(
        f"{target}: the checkpoint could not be written: {reason}. Checkpoints written before are "
        "untouched; make room, then continue with `palaestra resume`."
    )


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint after checking every file that it lists.

    Raises:
      BrokenCheckpointError: no manifest, or a file that is missing, altered or not a checkpoint's.
      UserError: a newer format than this version of Palaestra reads.
    """
    manifest = _manifest(path)
    version = manifest["schema_version"]
    if version > SCHEMA_VERSION:
        raise UserError(
            f"{path}: format version {version} is newer than {SCHEMA_VERSION}, "
            "the newest that this version of Palaestra reads; update Palaestra."
        )
    for name, expected in manifest["files"].items():
        if not _FILE.fullmatch(name):
            raise BrokenCheckpointError(
                f"{path}: MANIFEST.json names {name!r}, which is not a file of a checkpoint."
            )
        if not (path / name).is_file() or _checksum((path / name).read_bytes()) != expected:
            raise BrokenCheckpointError(
                f"{path / name}: missing or altered since the checkpoint was written."
            )
    return manifest


def _manifest(path: Path) -> dict[str, Any]:
    file = path / "MANIFEST.json"
    if not file.is_file():
        raise BrokenCheckpointError(f"{path}: no checkpoint here; MANIFEST.json is missing.")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(manifest["schema_version"], int) or not isinstance(
            manifest["files"], dict
        ):
            raise TypeError
    except (ValueError, KeyError, TypeError):
        raise BrokenCheckpointError(
            f"{file}: not a checkpoint's manifest; JSON with schema_version and files is expected."
        ) from None
    return manifest


def read_checkpoint(path: Path, only: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Return the parts of a checkpoint, brought to the present format, after checking every file.

    Args:
      path: a folder `step-<12 digits>`.
      only: names of the parts to read; None reads all.

    Raises:
      BrokenCheckpointError: a missing, altered or foreign file.
      UserError: a newer format than this version of Palaestra reads.
    """
    manifest = read_manifest(path)
    version = manifest["schema_version"]
    names = [file.removesuffix(".json") for file in manifest["files"] if file.endswith(".json")]
    # An older format may have its state in other parts.
    wanted = None if version < SCHEMA_VERSION else only
    parts = {name: _read_part(path, name) for name in names if wanted is None or name in wanted}
    for old in range(version, SCHEMA_VERSION):
        parts = MIGRATIONS[old](parts)
    missing = [name for name in only or () if name not in parts]
    if missing:
        raise BrokenCheckpointError(f"{path}: part {missing[0]!r} is missing.")
    return {name: part for name, part in parts.items() if only is None or name in only}


def _from_1(parts: dict[str, Any]) -> dict[str, Any]:
    """Version 1 kept learner and rollouts apart and was written at the end of an attempt alone."""
    for worker in parts["rollouts"].values():
        worker["resets"] = 0
        if worker["env"] is not None:  # its environments had always been seeded
            worker["env"].setdefault("rng", None)
    return {
        "actor": parts["actor"],
        "loop": {
            "learner": parts["learner"],
            "rollouts": parts["rollouts"],
            "updates": parts["counters"]["updates"],
        },
        "run": {
            **parts["counters"],
            "checkpoints": 1,
            "best": None,
            "logs": None,
            "episodes_since": {},
        },
    }


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}
"""Version -> what makes the parts of the next version of them."""


def _write_part(
    folder: Path, name: str, skeleton: Any, arrays: dict[str, np.ndarray]
) -> dict[str, Any]:
    from safetensors.numpy import save

    contents = {f"{name}.json": json.dumps(skeleton).encode(), f"{name}.safetensors": save(arrays)}
    for file, content in contents.items():
        _write(folder / file, content)
    return {file: _checksum(content) for file, content in contents.items()}


def _read_part(folder: Path, name: str) -> Any:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    file = folder / f"{name}.safetensors"
    try:
        arrays = load_file(file)
        return _join(json.loads((folder / f"{name}.json").read_text(encoding="utf-8")), arrays)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise BrokenCheckpointError(
            f"{file}: safetensors with a JSON file beside it are expected, and nothing else is "
            f"ever read (no pickle): {error}"
        ) from None


def _split(tree: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """Return `tree` with its arrays replaced by references, and copy them into `arrays`."""
    if isinstance(tree, dict):
        if not all(isinstance(key, str) for key in tree):
            raise TypeError(f"state{path}: keys have to be strings, not {list(tree)[:3]}")
        return {key: _split(value, f"{path}/{key}", arrays) for key, value in tree.items()}
    if isinstance(tree, tuple | list):
        return {_TUPLE: [_split(value, f"{path}/{i}", arrays) for i, value in enumerate(tree)]}
    if isinstance(tree, np.generic):
        return tree.item()
    if isinstance(tree, np.ndarray) or hasattr(tree, "detach"):
        array = np.asarray(tree.detach().cpu() if hasattr(tree, "detach") else tree)
        arrays[path] = array.copy(order="C")
        return {_ARRAY: path}
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise TypeError(f"state{path}: {type(tree).__name__} is neither an array nor plain data")


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


def _sync(path: Path) -> None:
    if path.exists():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _checksum(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
