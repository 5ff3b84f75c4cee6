"""The run folder: configuration, manifest and metrics on disk are the source of truth."""

import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

import palaestra
from palaestra.errors import UserError, did_you_mean
from palaestra.runs.config import (
    RunConfig,
    agent_label,
    config_hash,
    dump_yaml,
    parse_yaml,
    resolve,
)

SCHEMA_VERSION = 1
RUNS = Path(os.environ.get("PALAESTRA_RUNS") or "runs")
"""Where run folders are: as the environment variable PALAESTRA_RUNS says, or in `runs`."""

LOGS = ("metrics.jsonl", "episodes.jsonl")
"""Files that a run appends to and a resumed one cuts back to its checkpoint."""

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
        # Made aside and renamed, so that a run folder is complete or absent.
        temporary = root / f".tmp-{run_id}-{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        folder = cls(temporary, {})
        folder.write_config(config)
        folder.update_manifest(
            run_id=run_id,
            experiment=config.experiment,
            agent=agent_label(config.agent, config.policy),
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
            config_changes=[],
            failures=[],
        )
        try:
            temporary.rename(path)
        except OSError:  # another process was faster
            shutil.rmtree(temporary)
            cls.check_free(run_id, root)
            raise
        return cls(path, folder.manifest)

    @staticmethod
    def check_free(run_id: str, root: Path = RUNS) -> Path:
        """Return the folder that a new run of this id will have.

        Raises:
          UserError: the id is not a plain name, or a run of that id exists.
        """
        path = root / check_run_id(run_id)
        if path.exists():
            raise UserError(
                f"run {run_id!r} exists in {root}{os.sep}; go on with it by `palaestra resume "
                f"{run_id}`, or choose another --run-id. Nothing was changed."
            )
        return path

    @staticmethod
    def exists(run_id: str, root: Path = RUNS) -> bool:
        """Whether there is a run of this id."""
        return (root / check_run_id(run_id) / "manifest.json").is_file()

    @classmethod
    def open(cls, run: str | Path, root: Path = RUNS) -> Self:
        """Return the existing run named by its id or path.

        Raises:
          UserError: there is no such run (the nearest ids are listed), or its manifest is none.
        """
        for path in (Path(run), root / run):
            if (path / "manifest.json").is_file() and (path / "config.yaml").is_file():
                return cls(path, _read_manifest(path / "manifest.json"))
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

    def write_config(self, config: RunConfig) -> None:
        """Write config.yaml atomically."""
        temporary = self.path / ".config.yaml"
        temporary.write_text(dump_yaml(config), encoding="utf-8")
        temporary.replace(self.path / "config.yaml")

    def change_config(self, config: RunConfig, differences: Sequence[str]) -> None:
        """Go on with another configuration; the manifest keeps what was changed and when."""
        change = {
            "attempt": len(self.manifest["attempts"]) + 1,
            "from": self.manifest["config_hash"],
            "differences": list(differences),
        }
        changes = [*self.manifest.get("config_changes", []), change]
        self.write_config(config)
        self.update_manifest(config_hash=config_hash(config), config_changes=changes)

    @property
    def config_hashes(self) -> list[str]:
        """The hashes of all configurations that the run has had, the present one first."""
        changes = self.manifest.get("config_changes", [])
        return [self.manifest["config_hash"], *(change["from"] for change in changes)]

    def begin_attempt(self, from_step: int) -> None:
        """Note that a process starts working on the run."""
        (self.path / "stop-requested").unlink(missing_ok=True)
        attempts = [*self.manifest["attempts"]]
        if attempts and "ended" not in attempts[-1]:
            attempts[-1] = {**attempts[-1], "reason": "killed"}
        attempt = {"n": len(attempts) + 1, "started": _now(), "from_step": from_step}
        if submission := os.environ.get("RAY_JOB_SUBMISSION_ID"):
            attempt["submission_id"] = submission
        self.update_manifest(attempts=[*attempts, attempt], status="running")
        self.log(f"attempt {attempt['n']} from step {from_step}")

    def end_attempt(self, status: str, reason: str = "", **values: Any) -> None:
        """Note how the attempt ended: succeeded, stopped or failed."""
        attempts = [*self.manifest["attempts"]]
        attempts[-1] = {**attempts[-1], "ended": _now(), "reason": reason or status}
        self.update_manifest(attempts=attempts, status=status, ended=_now(), **values)
        self.log(f"{status} {reason}".strip())

    def stop_requested(self) -> bool:
        """Whether somebody asked the run to stop by a file `stop-requested`."""
        return (self.path / "stop-requested").exists()

    def log_lengths(self) -> dict[str, int]:
        """Return the length in bytes of each file that is appended to."""
        return {name: _length(self.path / name) for name in LOGS}

    def cut_logs(self, lengths: Mapping[str, int]) -> None:
        """Cut the files that are appended to back to these lengths.

        Raises:
          UserError: one of them is shorter; something else has changed it.
        """
        for name, length in lengths.items():
            path = self.path / name
            if _length(path) < length:
                raise UserError(
                    f"{path}: {_length(path)} bytes, but the checkpoint was made when it had "
                    f"{length}; put the file back to go on. Nothing was changed."
                )
        for name, length in lengths.items():
            if (self.path / name).exists():
                os.truncate(self.path / name, length)

    def log(self, message: str) -> None:
        """Append a line with the time to log.txt."""
        with (self.path / "log.txt").open("a", encoding="utf-8") as file:
            file.write(f"{_now()} {message}\n")

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


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version = manifest["schema_version"]
        if "config_hash" not in manifest or "attempts" not in manifest:
            raise KeyError
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{path}: not the manifest of a run; an exported folder can only be evaluated."
        ) from None
    if version > SCHEMA_VERSION:
        raise UserError(
            f"{path}: layout version {version} is newer than {SCHEMA_VERSION}, the newest that "
            "this version of Palaestra knows; update Palaestra."
        )
    return manifest


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


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
    source = Path(__file__).parents[2]  # the package
    try:
        sha, status = (
            subprocess.run(
                ["git", *arguments], cwd=source, capture_output=True, text=True, check=True
            ).stdout.strip()
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", "."))
        )
    except (OSError, subprocess.CalledProcessError):
        return {"git_sha": None, "dirty": None}
    return {"git_sha": sha, "dirty": bool(status)}
