"""The checkpoints of one run: written while training continues, pruned, and found again."""

import re
import shutil
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from palaestra.errors import UserError
from palaestra.runs.store.format import (
    BrokenCheckpointError,
    check_checkpoint,
    checkpoint_name,
    point_to,
    read_checkpoint,
    read_manifest,
    release,
    snapshot,
    write_checkpoint,
)

_NAME = re.compile(r"step-\d{12}")


class Checkpoints:
    """The folder `checkpoints` of a run.

    Args:
      folder: where the checkpoints are; it need not exist yet.
      keep_last: how many of the newest are kept.
      keep_every: every k-th of those that have a number is kept as well; None keeps none for that.
    """

    def __init__(self, folder: Path, keep_last: int = 2, keep_every: int | None = None) -> None:
        self.folder = folder
        self.keep_last = keep_last
        self.keep_every = keep_every
        self._writer: threading.Thread | None = None
        self._error: BaseException | None = None
        # What this object wrote or recovered last: name and manifest. The state that is saved next
        # has come from it.
        self._last: tuple[str, dict[str, Any]] | None = None

    def save(
        self,
        step: int,
        parts: dict[str, Any],
        identity: dict[str, Any],
        *,
        number: int | None = None,
        best: bool = False,
        flush: Sequence[Path] = (),
        wait: bool = True,
        written: Callable[[int], None] = lambda step: None,
    ) -> None:
        """Copy the state and write it, in the background unless `wait`.

        `Segments` in the state are not copied: they are written from where they are, and their
        owner's `touch` waits for a segment that is not yet written. What did not change since the
        checkpoint before is a hard link to the same file.

        Args:
          step: agent steps.
          parts: name -> nested state, see `snapshot`.
          identity: stored beside it, e.g. run id and configuration hash.
          number: which of the scheduled checkpoints it is, for `keep_every`; None for any other.
          best: this is the best checkpoint so far; the checkpoint itself names the best.
          flush: files that have to reach the disk first.
          wait: return when it is written.
          written: called with the step, by the writing thread, when it is on disk.

        Raises:
          RunError: this checkpoint, or the one before, could not be written.
        """
        self.wait()
        name = checkpoint_name(step)
        # A checkpoint of this very step is the same state.
        known = self._last is not None and self._last[0] == name
        if known or self._is_whole(name):
            return
        copied = snapshot(parts)
        before = self._last[1].get("best") if self._last else None
        identity = {**identity, "number": number, "best": name if best else before}

        def write() -> None:
            try:
                base = self._last and (self.folder / self._last[0], self._last[1])
                manifest = write_checkpoint(self.folder, step, copied, identity, flush, base)
                self._last = name, manifest
                written(step)
                if best:
                    point_to(self.folder / "best", name)
                self._prune()
            except BaseException as error:
                self._error = error
            finally:
                release(copied)

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
        """The name of the best checkpoint, if one was chosen: as the newest whole one says.

        The file `best` repeats it for people; a run of format 2 has only that.
        """
        known = self.names()
        for name in reversed(known):
            try:
                best = _best_of(self.folder, read_manifest(self.folder / name))
            except UserError:
                continue
            return best if best in known else None
        return None

    def step(self, name: str | None = None) -> int:
        """Return the agent steps of a checkpoint; see `read`."""
        return int(self._find(name).removeprefix("step-"))

    def read(self, name: str | None = None, only: tuple[str, ...] | None = None) -> dict[str, Any]:
        """Return the parts of one checkpoint; see `read_checkpoint`.

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
            for rest in self.folder.glob(".tmp-*"):
                shutil.rmtree(rest)
            for other, reason in broken:
                _set_aside(other)
                warnings.warn(
                    f"{reason} It was set aside; the run continues from the older {name}.",
                    stacklevel=2,
                )
            self._adopt(name, manifest)
            return name, parts
        if broken:
            raise UserError(
                f"{self.folder}: none of the checkpoints is whole. {broken[0][1]} Nothing was "
                "changed; start the run again under another --run-id."
            )
        for rest in self.folder.glob(".tmp-*"):
            shutil.rmtree(rest)
        return None

    def _adopt(self, name: str, manifest: dict[str, Any]) -> None:
        """Continue from a checkpoint; a kill may have come before the file `best` was renewed."""
        best = _best_of(self.folder, manifest)
        self._last = name, {**manifest, "best": best}
        if best is not None and best != _pointer(self.folder / "best"):
            point_to(self.folder / "best", best)

    def _is_whole(self, name: str) -> bool:
        try:
            check_checkpoint(self.folder / name)
        except UserError:
            return False
        return True

    def _prune(self) -> None:
        known = self.names()
        kept = {*known[-self.keep_last :], self._last[1]["best"] if self._last else None}
        for name in known:
            if name not in kept and not self._is_milestone(name):
                # Renamed first, so that a half removed one is never taken for a checkpoint.
                rest = self.folder / f".tmp-{name}"
                (self.folder / name).replace(rest)
                shutil.rmtree(rest)

    def _is_milestone(self, name: str) -> bool:
        """Whether `keep_every` keeps it; where that can't be told, nothing is thrown away."""
        if self.keep_every is None:
            return False
        try:
            number = read_manifest(self.folder / name).get("number")
        except UserError:
            return True
        return isinstance(number, int) and number % self.keep_every == 0


def _best_of(folder: Path, manifest: dict[str, Any]) -> str | None:
    """Return the best checkpoint that a checkpoint names; before format 3 only a file did."""
    best = manifest["best"] if "best" in manifest else _pointer(folder / "best")
    return best if isinstance(best, str) and _NAME.fullmatch(best) else None


def _pointer(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None


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
