"""What an export holds, and the check of every file before anything in it is used."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from pydantic import Field

from palaestra.errors import UserError
from palaestra.options import Options, validate

FORMAT = "palaestra-export"
SCHEMA_VERSION = 1

MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
CONFIG = "config.yaml"
RESULTS = "results.json"
CARD = "README.md"
REPLAY = "replay.jsonl"

_REQUIRED = (WEIGHTS, CONFIG, RESULTS, CARD, REPLAY)
_OF_A_HUB = (".git", ".gitattributes", ".cache")
"""What a download or a clone puts beside the files; never read."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LARGEST_MANIFEST = 1_000_000


class FileFacts(Options):
    """Size and checksum of one file."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest(Options):
    """`manifest.json` of an export."""

    format: str
    schema_version: int
    palaestra: str = Field(description="version that wrote the export")
    run_id: str
    agent: str = Field(description="algorithm and policy, as in tables")
    env_id: str
    checkpoint: str
    agent_steps: int = Field(ge=0, description="steps that the weights were trained for")
    config_hash: str
    files: dict[str, FileFacts]


def is_export(path: Path) -> bool:
    """Whether `path` is, or is meant to be, an export; `check_files` says whether it is whole."""
    return any((path / name).exists() for name in (WEIGHTS, RESULTS))


def facts_of(content: bytes) -> FileFacts:
    """Return size and checksum of a file's content."""
    return FileFacts(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def check_files(folder: Path) -> tuple[Manifest, dict[str, bytes]]:
    """Return the manifest and the content of configuration and weights, after checking all files.

    What is returned is what was checked: nothing is read a second time.

    Raises:
      UserError: no export, a newer format, or a file that is missing, altered or not listed.
    """
    manifest = read_manifest(folder)
    for name in manifest.files:
        if not _NAME.fullmatch(name) or name == MANIFEST:
            raise UserError(
                f"{folder / MANIFEST}: files: {name!r} is not accepted: the name of a file beside "
                "the manifest is expected, without any folder."
            )
    for name in _REQUIRED:
        if name not in manifest.files:
            raise UserError(f"{folder / MANIFEST}: files: {name!r} is missing.")
    for path in sorted(folder.iterdir()):
        if path.name not in (*manifest.files, MANIFEST, *_OF_A_HUB):
            raise UserError(
                f"{path}: not part of the export, whose files are {', '.join(manifest.files)}; "
                "remove it."
            )
    contents = {name: _checked(folder / name, facts) for name, facts in manifest.files.items()}
    return manifest, {name: contents[name] for name in (CONFIG, WEIGHTS)}


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of an export, whose files are not looked at.

    Raises:
      UserError: it is missing, not an export's, or of a newer format.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(f"{folder}: no export: {MANIFEST} is missing.")
    data = _json(path)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise UserError(f"{path}: not the manifest of an export: format {FORMAT!r} is expected.")
    version = data.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UserError(
            f"{path}: format version {version} is newer than {SCHEMA_VERSION}, the newest that "
            "this version of Palaestra reads; update Palaestra."
        )
    try:
        return validate(Manifest, data)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _json(path: Path) -> Any:
    if path.stat().st_size > _LARGEST_MANIFEST:
        raise UserError(f"{path}: larger than {_LARGEST_MANIFEST:,} bytes, no manifest is.")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON: {error}") from None


def _checked(path: Path, facts: FileFacts) -> bytes:
    """Return the content of a file; the size is compared first, so that no more is ever read."""
    if path.is_file() and path.stat().st_size == facts.bytes:
        content = path.read_bytes()
        if facts_of(content) == facts:
            return content
    raise UserError(f"{path}: missing or altered since the export was written.")
