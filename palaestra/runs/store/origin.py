"""Whether a run was made on this machine by this user, whose plug-ins it may then import.

Importing a module runs its code, and a folder with a run may come from anybody. A run that this
user made carries a mark in its manifest: a code over where it lies and what it imports, computed
with a key that lies outside of every run folder.
"""

import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def mark(folder: Path, plugins: Sequence[str]) -> str | None:
    """Return the mark of a run that is trained here; None where it imports nothing.

    Args:
      folder: the run's.
      plugins: modules that its configuration imports.
    """
    key = _key(make=True) if plugins else b""
    return _code(key, folder, plugins) if key else None


def is_marked(given: object, folder: Path, plugins: Sequence[str]) -> bool:
    """Whether `given` is what `mark` returns here."""
    key = _key(make=False)
    return bool(key) and given == _code(key, folder, plugins)


def _code(key: bytes, folder: Path, plugins: Sequence[str]) -> str:
    content = "\n".join([str(folder.resolve()), *plugins]).encode()
    return hmac.new(key, content, hashlib.sha256).hexdigest()


def _key(make: bool) -> bytes:
    """Return the user's key; nothing where there is none and no place for one."""
    try:
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        path = state / "palaestra" / "key"
        if make and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".key-{secrets.token_hex(8)}")
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(32))
            with suppress(FileExistsError):  # the first of two processes at once
                os.link(temporary, path)
            temporary.unlink()
        return path.read_bytes()
    except (OSError, RuntimeError):
        return b""
