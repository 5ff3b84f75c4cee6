"""The checkpoints of one run: written while training goes on, pruned, and found again."""

import json
import re
import shutil
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palaestra.errors import UserError
from palaestra.runs.store.format import (
    BrokenCheckpointError,
    checkpoint_name,
    point_to,
    read_checkpoint,
    read_manifest,
    snapshot,
    write_checkpoint,
)

_NAME = re.compile(r"step-\d{12}")


class Checkpoints:
    """The folder `checkpoints` of a run.

    Args:
      folder: where the checkpoints are; it need not exist yet.
      keep_last: how many of the newest are kept.
      keep_every: every k-th is kept as well; None keeps none for that.
    """

    def __init__(self, folder: Path, keep_last: int = 2, keep_every: int | None = None) -> None:
        self.folder = folder
        self.keep_last = keep_last
        self.keep_every = keep_every
        self._writer: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(
        self,
        step: int,
        parts: dict[str, Any],
        identity: dict[str, Any],
        *,
        number: int = 0,
        best: bool = False,
        flush: Sequence[Path] = (),
        wait: bool = True,
    ) -> None:
        """Copy the state and write it, in the background unless `wait`.

        Args:
          step: agent steps.
          parts: name -> nested state, see `snapshot`.
          identity: stored beside it, e.g. run id and configuration hash.
          number: how many checkpoints the run has made before, for `keep_every`.
          best: this is the best checkpoint so far.
          flush: files that have to reach the disk first.
          wait: return when it is written.

        Raises:
          RunError: this checkpoint, or the one before, could not be written.
        """
        self.wait()
        copied = snapshot(parts)
        identity = {**identity, "number": number}

        def write() -> None:
            try:
                # A checkpoint of this very step is the same state.
                if not self._is_whole(checkpoint_name(step)):
                    write_checkpoint(self.folder, step, copied, identity, flush)
                if best:
                    point_to(self.folder / "best", checkpoint_name(step))
                self._prune()
            except BaseException as error:
                self._error = error

        self._writer = threading.Thread(target=write, name="checkpoint", daemon=True)
        self._writer.start()
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait for the checkpoint that is being written.

        Raises:
          RunError: it could not be written.
        """
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def names(self) -> list[str]:
        """Return the names of all checkpoints, the newest last."""
        if not self.folder.is_dir():
            return []
        return sorted(p.name for p in self.folder.iterdir() if _NAME.fullmatch(p.name))

    @property
    def best(self) -> str | None:
        """The name of the best checkpoint, if one was chosen."""
        pointer = self.folder / "best"
        return pointer.read_text().strip() if pointer.is_file() else None

    def step(self, name: str | None = None) -> int:
        """Return the agent steps of a checkpoint; see `read`."""
        return int(self._find(name).removeprefix("step-"))

    def read(self, name: str | None = None, only: tuple[str, ...] | None = None) -> dict[str, Any]:
        """Return the parts of one checkpoint.

        Args:
          name: its name or "best"; None means the newest.
          only: names of the parts to read; None reads all.

        Raises:
          UserError: there is none, or it is broken; older ones that are whole are named.
        """
        chosen = self._find(name)
        try:
            return read_checkpoint(self.folder / chosen, only)
        except BrokenCheckpointError as error:
            whole = [other for other in self.names() if other != chosen and self._is_whole(other)]
            offer = f"Whole ones: {', '.join(whole)}." if whole else "There is no whole one."
            raise UserError(f"{error} {offer}") from None

    def _find(self, name: str | None) -> str:
        known = self.names()
        if not known:
            raise UserError(f"{self.folder}: no checkpoint here.")
        chosen = known[-1] if name is None else self.best if name == "best" else name
        if chosen not in known:
            accepted = [*known, *(["best"] if self.best else [])]
            raise UserError(
                f"{self.folder}: no checkpoint {name!r}; accepted: {', '.join(accepted)}."
            )
        return chosen

    def recover(self, hashes: Sequence[str]) -> tuple[str, dict[str, Any]] | None:
        """Return name and parts of the newest whole checkpoint, or None if there is none at all.

        What a killed process left half written is removed; a broken checkpoint is set aside under
        a name of its own, with a warning.

        Args:
          hashes: configuration hashes that this run has had; another one is a foreign checkpoint.

        Raises:
          UserError: all checkpoints are broken, or one is foreign or of a newer format.
        """
        for rest in self.folder.glob(".tmp-*"):
            shutil.rmtree(rest)
        broken = []
        for name in reversed(self.names()):
            path = self.folder / name
            try:
                manifest = read_manifest(path)
                _check_identity(path, manifest, hashes)
                parts = read_checkpoint(path)
            except BrokenCheckpointError as error:
                broken.append((path, error))
                continue
            for other, reason in broken:
                _set_aside(other)
                warnings.warn(
                    f"{reason} It was set aside; the run goes on from the older {name}.",
                    stacklevel=2,
                )
            return name, parts
        if broken:
            raise UserError(
                f"{self.folder}: none of the checkpoints is whole. {broken[0][1]} Nothing was "
                "changed; start the run again under another --run-id."
            )
        return None

    def _is_whole(self, name: str) -> bool:
        try:
            read_manifest(self.folder / name)
        except UserError:
            return False
        return True

    def _prune(self) -> None:
        known = self.names()
        kept = {*known[-self.keep_last :], self.best}
        for name in known:
            if name not in kept and not self._is_milestone(name):
                # Renamed first, so that a half removed one is never taken for a checkpoint.
                rest = self.folder / f".tmp-{name}"
                (self.folder / name).replace(rest)
                shutil.rmtree(rest)

    def _is_milestone(self, name: str) -> bool:
        if self.keep_every is None:
            return False
        manifest = json.loads((self.folder / name / "MANIFEST.json").read_text())
        return manifest.get("number", 0) % self.keep_every == 0


def _check_identity(path: Path, manifest: dict[str, Any], hashes: Sequence[str]) -> None:
    if manifest.get("config_hash") not in hashes:
        raise UserError(
            f"{path}: the checkpoint of another run (run id {manifest.get('run_id')!r}, "
            f"configuration {manifest.get('config_hash')}); this run has had the configuration "
            f"{' or '.join(hashes)}. Nothing was changed."
        )


def _set_aside(path: Path) -> None:
    number = 1
    while (target := path.with_name(f"broken-{path.name}-{number}")).exists():
        number += 1
    path.replace(target)


def load_checkpoint(
    folder: Path, only: tuple[str, ...] | None = None, name: str | None = None
) -> dict[str, Any]:
    """Return the parts of a checkpoint below `folder`; see `Checkpoints.read`."""
    return Checkpoints(folder).read(name, only)
