"""The run folder: configuration, manifest and metrics on disk are the source of truth."""

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

import palaestra
from palaestra.errors import UserError, did_you_mean
from palaestra.runs.config import RunConfig, config_hash, dump_yaml, parse_yaml, resolve

SCHEMA_VERSION = 1
RUNS = Path("runs")
"""Where run folders are, below the working directory."""

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_PACKAGES = ("palaestra", "gymnasium", "numpy", "torch", "ray", "stable-baselines3")


class RunFolder:
    """One run on disk; create it with `create`, find it with `open`.

    Attributes:
      path: the folder.
      manifest: identity and history, rewritten atomically by `update_manifest`.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self._metrics = path / "metrics.jsonl"
        self._episodes = path / "episodes.jsonl"

    @classmethod
    def create(cls, run_id: str, config: RunConfig, root: Path = RUNS) -> Self:
        """Make a new folder with config.yaml and manifest.json.

        Raises:
          UserError: the id is not a plain name, or a run of that id exists.
        """
        path = cls.check_free(run_id, root)
        path.mkdir(parents=True)
        (path / "config.yaml").write_text(dump_yaml(config), encoding="utf-8")
        folder = cls(path, {})
        folder.update_manifest(
            run_id=run_id,
            experiment=config.experiment,
            schema_version=SCHEMA_VERSION,
            config_hash=config_hash(config),
            code_version=_code_version(),
            packages={name: _version(name) for name in _PACKAGES},
            python=platform.python_version(),
            platform=platform.platform(),
            device="cpu",
            torch_threads=config.threads,
            env={"id": config.env.id},
            started=_now(),
            ended=None,
            status="created",
            attempts=[],
            failures=[],
        )
        return folder

    @staticmethod
    def check_free(run_id: str, root: Path = RUNS) -> Path:
        """Return the folder that a new run of this id will have.

        Raises:
          UserError: the id is not a plain name, or a run of that id exists.
        """
        path = root / check_run_id(run_id)
        if path.exists():
            raise UserError(
                f"run {run_id!r} exists in {root}{os.sep}; choose another --run-id or remove it. "
                "Nothing was changed."
            )
        return path

    @classmethod
    def open(cls, run: str | Path, root: Path = RUNS) -> Self:
        """Return the existing run named by its id or path.

        Raises:
          UserError: there is no such run; the nearest ids are listed.
        """
        for path in (Path(run), root / run):
            if (path / "manifest.json").is_file() and (path / "config.yaml").is_file():
                return cls(path, json.loads((path / "manifest.json").read_text(encoding="utf-8")))
        known = [p.parent.name for p in root.glob("*/manifest.json")]
        raise UserError(
            f"unknown run {str(run)!r} (no folder with config.yaml and manifest.json): "
            f"{did_you_mean(str(run), known)}"
        )

    def config(self) -> RunConfig:
        """Return the run's configuration."""
        path = self.path / "config.yaml"
        return resolve(parse_yaml(path.read_text(encoding="utf-8"), str(path)))

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    def update_manifest(self, **values: Any) -> None:
        """Set values of the manifest and rewrite it atomically."""
        self.manifest |= values
        temporary = self.path / ".manifest.json"
        temporary.write_text(json.dumps(self.manifest, indent=1), encoding="utf-8")
        temporary.replace(self.path / "manifest.json")

    def begin_attempt(self, from_step: int) -> None:
        """Note that a process starts working on the run."""
        attempts = [*self.manifest["attempts"]]
        attempts.append({"n": len(attempts) + 1, "started": _now(), "from_step": from_step})
        self.update_manifest(attempts=attempts, status="running")

    def end_attempt(self, status: str, reason: str = "", **values: Any) -> None:
        """Note how the attempt ended: succeeded, stopped or failed."""
        attempts = [*self.manifest["attempts"]]
        attempts[-1] = {**attempts[-1], "ended": _now(), "reason": reason or status}
        self.update_manifest(attempts=attempts, status=status, ended=_now(), **values)

    def write_metrics(self, line: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        _append(self._metrics, line)

    def write_episodes(self, line: Mapping[str, Any]) -> None:
        """Append one line to episodes.jsonl: columns of the episodes of one fragment."""
        _append(self._episodes, line)


def check_run_id(run_id: str) -> str:
    """Return the id if it can name a folder anywhere.

    Raises:
      UserError: it cannot.
    """
    if not _RUN_ID.fullmatch(run_id):
        raise UserError(
            f"run id {run_id!r}: letters, digits, '.', '_' and '-' are accepted, at most 200, "
            "a letter or digit first."
        )
    return run_id


def _append(path: Path, line: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    if package == "palaestra":
        return palaestra.__version__
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _code_version() -> dict[str, Any]:
    """Return the git commit of the installed source and whether it was changed since."""
    source = Path(__file__).parent
    try:
        sha, status = (
            subprocess.run(
                ["git", *arguments], cwd=source, capture_output=True, text=True, check=True
            ).stdout.strip()
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", ".."))
        )
    except (OSError, subprocess.CalledProcessError):
        return {"git_sha": None, "dirty": None}
    return {"git_sha": sha, "dirty": bool(status)}
