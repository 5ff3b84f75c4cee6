"""The format of a checkpoint: nested state as safetensors and JSON, one unit, never pickled."""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from palaestra.errors import RunError, UserError
from palaestra.experience.segments import Frozen, Segments
from palaestra.runs.store.segments import StoredSegments
from palaestra.runs.store.tensors import TYPES, write_tensors

SCHEMA_VERSION = 3

_ARRAY, _TUPLE, _TEXT, _SEGMENTS = "__array__", "__tuple__", "__text__", "__segments__"
_FILE = re.compile(r"[a-z_]+\.json|[a-z_]+(\.\d+-\d{6})?\.safetensors")
_ODD = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


class BrokenCheckpointError(UserError):
    """A file of the checkpoint is missing, altered or not what it should be."""


def checkpoint_name(step: int) -> str:
    """Return the name of the checkpoint of an agent step."""
    return f"step-{step:012d}"


@dataclass
class Part:
    """One part of a state: plain JSON data that refers to arrays by their path in the tree."""

    skeleton: Any = None
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    segments: list[tuple[str, Frozen]] = field(default_factory=list)


def snapshot(parts: Mapping[str, Any]) -> dict[str, Part]:
    """Return the parts as they are now, so that they can be written while training continues.

    Arrays are copied, but for those that an earlier part holds too: the later one refers to them.
    `Segments` are frozen instead; whoever has no use for the snapshot releases them by `release`.

    Raises:
      TypeError: something in a part can't be restored.
    """
    found: dict[str, Part] = {}
    known: dict[Any, list[tuple[str, str, np.ndarray]]] = {}
    try:
        for name, tree in parts.items():
            found[name] = part = Part()
            part.skeleton = _split(tree, "", name, part, known)
    except BaseException:
        release(found)
        raise
    return found


def release(parts: Mapping[str, Part]) -> None:
    """Let whoever owns segments of the snapshot change them."""
    for part in parts.values():
        for _, frozen in part.segments:
            frozen.release()


def write_checkpoint(
    folder: Path,
    step: int,
    parts: Mapping[str, Part],
    identity: Mapping[str, Any],
    flush: Sequence[Path] = (),
    base: tuple[Path, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Write a snapshot as `folder/step-<12 digits>` and return its manifest.

    The files are written to a temporary folder, flushed to disk, listed with their checksums and
    only then moved into place, so a reader sees a complete checkpoint or none.

    Args:
      folder: the run's `checkpoints` folder.
      step: agent steps, names the checkpoint.
      parts: what `snapshot` returned; each part is its own files.
      identity: stored in the manifest, e.g. run id and configuration hash.
      flush: files that the checkpoint refers to; they reach the disk before it does.
      base: path and manifest of the checkpoint before, an ancestor of this state; segments that
        have not changed since are taken from it.

    Raises:
      RunError: the disk is full or cannot be written; what was there before is untouched.
    """
    target = folder / checkpoint_name(step)
    temporary = folder / f".tmp-{step:012d}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        files: dict[str, Any] = {}
        segments: dict[str, Any] = {}
        for name, part in parts.items():
            files |= _write_part(temporary, name, part)
            if part.segments:
                stored, listed = _write_segments(temporary, name, part.segments, base)
                files, segments = files | stored, segments | {name: listed}
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "step": step,
            **identity,
            "segments": segments,
            "files": files,
        }
        manifest["checksum"] = _seal(manifest)
        _write(temporary / "MANIFEST.json", json.dumps(manifest, indent=1).encode())
        # All are written before the first is flushed, so that the disk can take them together.
        for file in [*files, "MANIFEST.json"]:
            _sync(temporary / file)
        _sync(temporary)
        for path in flush:
            _sync(path)
        if target.exists():  # only what is broken is ever written again
            target.replace(folder / f".broken-{target.name}-{os.getpid()}")
        temporary.replace(target)
        _sync(folder)
        point_to(folder / "latest", target.name)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise _unwritable(target, error) from error
    return manifest


def point_to(pointer: Path, content: str) -> None:
    """Write a small file atomically."""
    temporary = pointer.with_name(f".{pointer.name}")
    _write(temporary, content.encode())
    _sync(temporary)
    temporary.replace(pointer)
    _sync(pointer.parent)


def _unwritable(target: Path, error: OSError) -> RunError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    reason = "no space is left on the disk" if full else str(error)
    return RunError(
        f"{target}: the checkpoint could not be written: {reason}. Checkpoints written before are "
        "untouched; make room, then continue with `palaestra resume`."
    )


def check_checkpoint(path: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint after checking every file that it lists.

    Raises:
      BrokenCheckpointError: no manifest, or a file that is missing, altered or not a checkpoint's.
      UserError: a newer format than this version of Palaestra reads.
    """
    manifest = read_manifest(path)
    for name in manifest["files"]:
        _check_file(path, name, manifest)
    return manifest


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint, whose files are not looked at.

    It holds a checksum of itself. Formats 1 and 2 had none. Every later one has, computed as here,
    so that a flipped bit in the number of the format is not taken for a newer format.

    Raises:
      BrokenCheckpointError: it is missing, altered or not a checkpoint's manifest.
      UserError: a newer format than this version of Palaestra reads.
    """
    file = path / "MANIFEST.json"
    if not file.is_file():
        raise BrokenCheckpointError(f"{path}: no checkpoint here; MANIFEST.json is missing.")
    try:
        manifest = json.loads(file.read_bytes())
        version, files = manifest["schema_version"], manifest["files"]
        if type(version) is not int or version < 1 or not isinstance(files, dict):
            raise TypeError
        if manifest["step"] != int(path.name.removeprefix("step-")):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise BrokenCheckpointError(
            f"{file}: not this checkpoint's manifest; JSON with schema_version, step and files is "
            "expected."
        ) from None
    if (version > 2 or "checksum" in manifest) and manifest.get("checksum") != _seal(manifest):
        raise BrokenCheckpointError(f"{file}: altered since the checkpoint was written.")
    if version > SCHEMA_VERSION:
        raise UserError(
            f"{path}: format version {version} is newer than {SCHEMA_VERSION}, "
            "the newest that this version of Palaestra reads; update Palaestra."
        )
    for name in files:
        if not _FILE.fullmatch(name):
            raise BrokenCheckpointError(
                f"{path}: MANIFEST.json names {name!r}, which is not a file of a checkpoint."
            )
    checked: dict[str, Any] = manifest
    return checked


def _seal(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of everything in a manifest but the checksum itself."""
    content = {name: value for name, value in manifest.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check_file(path: Path, name: str, manifest: Mapping[str, Any]) -> None:
    try:
        with (path / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            found = {"bytes": file.tell(), "sha256": digest}
    except OSError:
        found = {}
    if name not in manifest["files"] or found != manifest["files"][name]:
        raise BrokenCheckpointError(
            f"{path / name}: missing or altered since the checkpoint was written."
        )


def read_checkpoint(path: Path, only: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Return the parts of a checkpoint, brought to the present format, after checking its files.

    Segments come as `StoredSegments`, which are read when they are asked to.

    Args:
      path: a folder `step-<12 digits>`.
      only: names of the parts to read, whose files alone are checked; None reads all.

    Raises:
      BrokenCheckpointError: a missing, altered or foreign file.
      UserError: a newer format than this version of Palaestra reads.
    """
    manifest = read_manifest(path)
    version = manifest["schema_version"]
    names = [file.removesuffix(".json") for file in manifest["files"] if file.endswith(".json")]
    # An older format may have its state in other parts.
    wanted = names if only is None or version < SCHEMA_VERSION else only
    reader = _Reader(path, manifest)
    try:
        parts = {name: reader.part(name) for name in wanted if name in names}
        if only is None:
            reader.check_all()
        for old in range(version, SCHEMA_VERSION):
            parts = MIGRATIONS[old](parts)
    except _ODD as error:
        if isinstance(error, UserError):
            raise
        raise BrokenCheckpointError(f"{path}: not what a checkpoint holds: {error!r}") from None
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


def _from_2(parts: dict[str, Any]) -> dict[str, Any]:
    """Version 2 stored every array where it stands, and its manifest had no checksum."""
    return parts


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1, 2: _from_2}
"""Version -> what makes the parts of the next version of them."""


def _write_part(folder: Path, name: str, part: Part) -> dict[str, Any]:
    content = json.dumps(part.skeleton).encode()
    _write(folder / f"{name}.json", content)
    digest = hashlib.sha256(content).hexdigest()
    files = {f"{name}.json": {"bytes": len(content), "sha256": digest}}
    if part.arrays:
        file = f"{name}.safetensors"
        files[file] = _write_arrays(folder / file, part.arrays)
    return files


def _write_segments(
    folder: Path,
    part: str,
    segments: Sequence[tuple[str, Frozen]],
    base: tuple[Path, dict[str, Any]] | None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Write or link the segments of a part; return the files and the descriptions of the leaves."""
    files: dict[str, Any] = {}
    listed = []
    for number, (path, frozen) in enumerate(segments):
        arrays = {name: [dtype, list(shape)] for name, (dtype, shape) in frozen.layout.items()}
        leaf = {"path": path, "arrays": arrays, "stamps": frozen.stamps.tolist()}
        before = _unchanged(part, leaf, base)

        def store(segment: int, views: dict[str, np.ndarray]) -> None:
            file = _segment_file(part, number, segment)  # noqa: B023
            files[file] = (
                _link(before[segment], folder / file) if segment in before else None  # noqa: B023
            ) or _write_arrays(folder / file, views)

        frozen.store(store)
        listed.append(leaf)
    return files, listed


def _segment_file(part: str, leaf: int, segment: int) -> str:
    return f"{part}.{leaf}-{segment:06d}.safetensors"


def _unchanged(
    part: str, leaf: Mapping[str, Any], base: tuple[Path, dict[str, Any]] | None
) -> dict[int, tuple[Path, dict[str, Any]]]:
    """Return file and checksum in `base` of each segment whose stamp is still the same."""
    folder, manifest = base or (Path(), {})
    for number, other in enumerate(manifest.get("segments", {}).get(part, [])):
        same = all(other[key] == leaf[key] for key in ("path", "arrays"))
        if same and len(other["stamps"]) == len(leaf["stamps"]):
            pairs = enumerate(zip(other["stamps"], leaf["stamps"], strict=True))
            names = {s: _segment_file(part, number, s) for s, (a, b) in pairs if a == b}
            return {s: (folder / name, manifest["files"][name]) for s, name in names.items()}
    return {}


def _link(source: tuple[Path, dict[str, Any]], target: Path) -> dict[str, Any] | None:
    """Give a file of the checkpoint before a second name, and return its checksum.

    None where the file system has no hard links or the file is not what it was: the content is in
    memory, so that it is written again rather than copied.
    """
    path, checksum = source
    try:
        if path.stat().st_size != checksum["bytes"]:
            return None
        os.link(path, target)
    except OSError:
        return None
    return checksum


class _Reader:
    """Reads the parts of one checkpoint, each file checked before it is used."""

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self._arrays: dict[str, dict[str, np.ndarray]] = {}
        self._checked: set[str] = set()

    def check_all(self) -> None:
        """Check every file that was not read."""
        for name in self.manifest["files"]:
            self._check(name)

    def part(self, name: str) -> Any:
        """Return a part with its arrays in their places."""
        self._check(f"{name}.json")
        skeleton = json.loads((self.path / f"{name}.json").read_bytes())
        return self._join(skeleton, name)

    def _check(self, name: str) -> None:
        if name not in self._checked:
            _check_file(self.path, name, self.manifest)
            self._checked.add(name)

    def _array(self, part: str, path: str) -> np.ndarray:
        if part not in self._arrays:
            self._arrays[part] = self._read_arrays(part)
        return self._arrays[part][path]

    def _read_arrays(self, part: str) -> dict[str, np.ndarray]:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        name = f"{part}.safetensors"
        self._check(name)
        try:
            return load_file(self.path / name)
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise BrokenCheckpointError(
                f"{self.path / name}: safetensors with a JSON file beside it are expected, and "
                f"nothing else is ever read (no pickle): {error}"
            ) from None

    def _segments(self, part: str, leaf: int) -> StoredSegments:
        stored = self.manifest["segments"][part][leaf]
        names = [_segment_file(part, leaf, s) for s in range(len(stored["stamps"]))]
        for name in names:
            self._check(name)
        layout = {name: (dtype, tuple(shape)) for name, (dtype, shape) in stored["arrays"].items()}
        stamps = np.array(stored["stamps"], np.int64)
        return StoredSegments([self.path / name for name in names], layout, stamps)

    def _join(self, tree: Any, part: str) -> Any:
        if not isinstance(tree, dict):
            return tree
        if _ARRAY in tree:
            if "part" in tree:  # its own array, so that changing one does not change the other
                return self._array(tree["part"], tree[_ARRAY]).copy()
            return self._array(part, tree[_ARRAY])
        if _TUPLE in tree:
            return tuple(self._join(value, part) for value in tree[_TUPLE])
        if _TEXT in tree:
            text = np.array(tree[_TEXT], tree["dtype"]).reshape(tree["shape"])
            if not _is_text(text):
                raise ValueError(f"{tree['dtype']} is not a type of text")
            return text
        if _SEGMENTS in tree:
            return self._segments(part, tree[_SEGMENTS])
        return {key: self._join(value, part) for key, value in tree.items()}


def _split(tree: Any, path: str, name: str, part: Part, known: dict[Any, Any]) -> Any:
    """Return `tree` with its arrays replaced by references, and copy them into `part`."""
    if isinstance(tree, dict):
        if not all(isinstance(key, str) for key in tree):
            raise TypeError(f"state{path}: keys have to be strings, not {list(tree)[:3]}")
        return {k: _split(value, f"{path}/{k}", name, part, known) for k, value in tree.items()}
    if isinstance(tree, tuple | list):
        items = enumerate(tree)
        return {_TUPLE: [_split(value, f"{path}/{i}", name, part, known) for i, value in items]}
    if isinstance(tree, np.generic):
        return tree.item()
    if isinstance(tree, Segments):
        part.segments.append((path, tree.freeze()))
        return {_SEGMENTS: len(part.segments) - 1}
    if isinstance(tree, np.ndarray) and _is_text(tree):
        return {_TEXT: tree.ravel().tolist(), "dtype": tree.dtype.str, "shape": list(tree.shape)}
    if isinstance(tree, np.ndarray) or hasattr(tree, "detach"):
        array = np.asarray(tree.detach().cpu() if hasattr(tree, "detach") else tree)
        if array.dtype not in TYPES:
            raise TypeError(f"state{path}: arrays of {array.dtype} can't be stored")
        return _reference(array, path, name, part, known)
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise TypeError(f"state{path}: {type(tree).__name__} is neither an array nor plain data")


def _is_text(array: np.ndarray) -> bool:
    kind = array.dtype.kind
    return kind == "U" or (kind == "O" and all(isinstance(x, str) for x in array.flat))


def _reference(
    array: np.ndarray, path: str, name: str, part: Part, known: dict[Any, Any]
) -> dict[str, Any]:
    """Return where the array is stored: in an earlier part that has it too, or here.

    The weights of the part `actor` are most often the learner's as well.
    """
    alike = known.setdefault((array.dtype, array.shape), [])
    for other, where, stored in alike:
        if other != name and _same_bytes(array, stored):
            return {_ARRAY: where, "part": other}
    part.arrays[path] = array.copy(order="C")
    alike.append((name, path, part.arrays[path]))
    return {_ARRAY: path}


def _same_bytes(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays of one type and shape are equal bit for bit, NaN and -0 included."""
    if not one.size or one.item(0) != other.item(0):  # soon told; where it is NaN, no matter
        return False
    a, b = (np.ascontiguousarray(x).reshape(-1).view(np.uint8) for x in (one, other))
    return np.array_equal(a, b)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return write_tensors(path, arrays)


def _sync(path: Path) -> None:
    """Flush a file, if it is there, or a folder's list of files to disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
