"""The run folder: configuration, manifest and metrics on disk are the source of truth."""

import functools
import json
import math
import os
import platform
import re
import shutil
import subprocess
import threading
import warnings
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
    read_yaml,
    resolve,
)
from palaestra.runs.store.origin import is_marked, mark

SCHEMA_VERSION = 1
RUNS = Path(os.environ.get("PALAESTRA_RUNS") or "runs")
"""Where run folders are: as the environment variable PALAESTRA_RUNS says, or in `runs`."""

LOGS = ("metrics.jsonl", "episodes.jsonl")
"""Files that a run appends to and a resumed one cuts back to its checkpoint."""

STATUS = ("created", "running", "succeeded", "stopped", "failed")
"""What a run can be; `running` also after a kill."""

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_PACKAGES = ("palaestra", "gymnasium", "numpy", "torch", "ray", "stable-baselines3")


class RunFolder:
    """One run on disk; create it with `create`, find it with `open`.

    Attributes:
      path: the folder.
      manifest: identity and history, rewritten atomically by `update_manifest`.
      allow_plugins: modules that the configuration may import wherever the run was made.
    """

    def __init__(
        self, path: Path, manifest: dict[str, Any], allow_plugins: Sequence[str] = ()
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.allow_plugins = tuple(allow_plugins)
        self._writing = threading.Lock()  # checkpoints are noted by the thread that writes them
        self._metrics = path / "metrics.jsonl"
        self._episodes = path / "episodes.jsonl"

    @classmethod
    def create(cls, run_id: str, config: RunConfig, root: Path = RUNS) -> Self:
        """Make a new folder with config.yaml and manifest.json.

        Raises:
          UserError: the id is not a plain name, a run of that id exists, or the folder cannot be
            made.
        """
        path = cls.check_free(run_id, root)
        # Made aside and renamed, so that a run folder is complete or absent.
        temporary = root / f".tmp-{run_id}-{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir(parents=True)
        except OSError as error:
            raise UserError(
                f"{path}: the run folder cannot be made: {error}. A folder that can be written is "
                "needed; PALAESTRA_RUNS names another."
            ) from error
        folder = cls(temporary, {}, config.plugins)
        folder.write_config(config)
        folder.update_manifest(
            run_id=run_id,
            experiment=config.experiment,
            agent=agent_label(config.agent, config.policy),
            schema_version=SCHEMA_VERSION,
            config_hash=config_hash(config),
            config=config.model_dump(mode="json"),
            plugins_mark=mark(path, config.plugins),
            **_versions(),
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
        return cls(path, folder.manifest, config.plugins)

    @staticmethod
    def check_free(run_id: str, root: Path = RUNS) -> Path:
        """Return the folder that a new run of this id will have.

        Raises:
          UserError: the id is not a plain name, or a run of that id exists.
        """
        path = root / check_run_id(run_id)
        if path.exists():
            raise UserError(
                f"run {run_id!r} exists in {root}{os.sep}; continue it by `palaestra resume "
                f"{run_id}`, or choose another --run-id. Nothing was changed."
            )
        return path

    @staticmethod
    def exists(run_id: str, root: Path = RUNS) -> bool:
        """Whether there is a run of this id."""
        return (root / check_run_id(run_id) / "manifest.json").is_file()

    @classmethod
    def open(cls, run: str | Path, root: Path = RUNS, allow_plugins: Sequence[str] = ()) -> Self:
        """Return the existing run named by its id or path.

        Args:
          run: id or path.
          root: where run folders are.
          allow_plugins: modules that its configuration may import although the run was not made
            here; see `config`.

        Raises:
          UserError: there is no such run (the nearest ids are listed), or its manifest is none.
        """
        for path in (Path(run), root / run):
            if (path / "manifest.json").is_file() and (path / "config.yaml").is_file():
                return cls(path, _read_manifest(path / "manifest.json"), allow_plugins)
        known = [p.parent.name for p in root.glob("*/manifest.json")]
        raise UserError(
            f"unknown run {str(run)!r} (no folder with config.yaml and manifest.json): "
            f"{did_you_mean(str(run), known)}"
        )

    def config(self) -> RunConfig:
        """Return the configuration in the folder's config.yaml, with its plug-ins imported.

        Raises:
          UserError: not a configuration, or one that imports modules although the run was not
            made in this place by this user and nobody has allowed them by name.
        """
        path = self.path / "config.yaml"
        return self._resolved(read_yaml(path), path)

    def trained_config(self) -> RunConfig:
        """Return the configuration that the run was trained with last, as the manifest has it.

        It differs from `config` where somebody has changed config.yaml since. Runs of the first
        versions have only that file.
        """
        if (known := self.manifest.get("config")) is None:
            return self.config()
        return self._resolved(known, self.path / "manifest.json")

    def _resolved(self, raw: Any, source: Path) -> RunConfig:
        if not isinstance(raw, dict):
            raise UserError(f"{source}: a mapping of keys is expected, not {type(raw).__name__}.")
        plugins = raw.get("plugins") or ()
        if not isinstance(plugins, list | tuple) or not all(isinstance(p, str) for p in plugins):
            raise UserError(f"{source}: plugins: {plugins!r}: a list of modules is expected.")
        foreign = [module for module in plugins if module not in self.allow_plugins]
        if foreign and not is_marked(self.manifest.get("plugins_mark"), self.path, plugins):
            raise UserError(
                f"{source}: plugins: the run imports {', '.join(map(repr, foreign))}, and "
                "importing a module runs its code. This run was not made by you in this place: "
                "it was copied, moved or comes from elsewhere. If you trust the "
                "module, allow it by name: "
                f"{' '.join(f'--allow-plugin {module}' for module in foreign)}"
            )
        return resolve(raw)

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    def update_manifest(self, **values: Any) -> None:
        """Set values of the manifest and rewrite it atomically."""
        with self._writing:
            self.manifest |= values
            text = json.dumps(self.manifest, indent=1)
            _replace(self.path / "manifest.json", text)

    def write_config(self, config: RunConfig) -> None:
        """Write config.yaml atomically."""
        _replace(self.path / "config.yaml", dump_yaml(config))

    def change_config(self, config: RunConfig, differences: Sequence[str]) -> None:
        """Continue with another configuration; the manifest keeps what was changed and when."""
        change = {
            "attempt": len(self.manifest["attempts"]) + 1,
            "from": self.manifest["config_hash"],
            "differences": list(differences),
        }
        changes = [*self.manifest.get("config_changes", []), change]
        self.write_config(config)
        self.update_manifest(
            config_hash=config_hash(config),
            config=config.model_dump(mode="json"),
            config_changes=changes,
        )

    @property
    def config_hashes(self) -> list[str]:
        """The hashes of all configurations that the run has had, the present one first."""
        changes = self.manifest.get("config_changes", [])
        return [self.manifest["config_hash"], *(change["from"] for change in changes)]

    def begin_attempt(self, from_step: int) -> None:
        """Note that a process starts working on the run, and warn where it is another software."""
        (self.path / "stop-requested").unlink(missing_ok=True)
        attempts = [*self.manifest["attempts"]]
        if attempts and "ended" not in attempts[-1]:
            attempts[-1] = {**attempts[-1], "reason": "killed"}
        versions = _versions()
        attempt = {"n": len(attempts) + 1, "started": _now(), "from_step": from_step}
        if submission := os.environ.get("RAY_JOB_SUBMISSION_ID"):
            attempt["submission_id"] = submission
        changed = _difference(self.manifest, versions) if attempts else []
        self.update_manifest(
            attempts=[*attempts, {**attempt, "versions": versions}], status="running", **versions
        )
        self.log(f"attempt {attempt['n']} from step {from_step}")
        if changed:
            message = (
                f"run {self.manifest['run_id']}: not the software of the attempt before, so that "
                f"it may not continue bit for bit: {'; '.join(changed)}"
            )
            self.log(message)
            warnings.warn(message, stacklevel=2)

    def adopt(self, config: RunConfig) -> None:
        """Make a run that was copied or renamed one of its own, and say so.

        The folder's name is the run's id: two runs of one id would be taken for one in tables
        and trackers.
        """
        old = self.manifest["run_id"]
        if old != self.path.name:
            message = (
                f"{self.path} is a copy of the run {old!r}, or that run renamed; from now on its "
                f"run id is {self.path.name!r}"
            )
            self.update_manifest(
                run_id=self.path.name, copied_from=[*self.manifest.get("copied_from", []), old]
            )
            self.log(message)
            warnings.warn(message, stacklevel=2)
        # Whoever trains with a configuration has said that its plug-ins may be imported.
        self.update_manifest(
            config=self.manifest.get("config") or config.model_dump(mode="json"),
            plugins_mark=mark(self.path, config.plugins),
        )

    @property
    def progress(self) -> int:
        """Agent steps of the last checkpoint that is known to have been written."""
        if self.manifest["status"] in ("succeeded", "stopped"):  # both end with a checkpoint
            ended = self.manifest.get("agent_steps", 0)
        else:
            ended = 0
        begun = [attempt.get("from_step", 0) for attempt in self.manifest["attempts"]]
        result: int = max([self.manifest.get("checkpoint_step", 0), ended, *begun])
        return result

    def check_links(self) -> None:
        """Check that what a run writes to lies in its folder.

        Raises:
          UserError: one of its files is a symbolic link.
        """
        for name in (*LOGS, "log.txt", "lock", "manifest.json", "config.yaml"):
            if (self.path / name).is_symlink():
                raise UserError(
                    f"{self.path / name}: a symbolic link, which may lead anywhere; the file "
                    "itself is expected. Nothing was changed."
                )

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
        self.check_logs(lengths)
        for name, length in lengths.items():
            if (self.path / name).exists():
                os.truncate(self.path / name, length)

    def check_logs(self, lengths: Mapping[str, int]) -> None:
        """Check that the files that are appended to can be cut back to these lengths.

        Raises:
          UserError: another file than these, no length, or a file that is shorter.
        """
        for name, length in lengths.items():
            if name not in LOGS:
                raise UserError(
                    f"{self.path}: a checkpoint names the log {name!r}; accepted: "
                    f"{', '.join(LOGS)}. Nothing was changed."
                )
            if type(length) is not int or length < 0:
                raise UserError(f"{self.path / name}: {length!r} is not a length in bytes.")
            if _length(self.path / name) < length:
                raise UserError(
                    f"{self.path / name}: {_length(self.path / name)} bytes, but the checkpoint "
                    f"was made when it had {length}; put the file back to continue. Nothing was "
                    "changed."
                )

    def log(self, message: str) -> None:
        """Append a line with the time to log.txt."""
        with (self.path / "log.txt").open("a", encoding="utf-8") as file:
            file.write(f"{_now()} {message}\n")

    def write_metrics(self, line: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl, without what is not a finite number."""
        _append(self._metrics, {k: v for k, v in _finite(line).items() if v is not None})

    def write_episodes(self, line: Mapping[str, Any]) -> None:
        """Append one line to episodes.jsonl: columns of the episodes of one fragment.

        A number that is not finite is stored as null.
        """
        _append(self._episodes, _finite(line))


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


_EXPECTED: dict[str, type] = {
    "run_id": str,
    "schema_version": int,
    "config_hash": str,
    "status": str,
    "attempts": list,
}
"""What the manifest of every run has had, and the type."""

_KNOWN: dict[str, type] = {
    "packages": dict,
    "code_version": dict,
    "config": dict,
    "config_changes": list,
    "copied_from": list,
    "failures": list,
    "agent_steps": int,
    "checkpoint_step": int,
}
"""What it may have, and the type."""


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        manifest = None
    if not isinstance(manifest, dict) or "schema_version" not in manifest:
        raise UserError(
            f"{path}: not the manifest of a run; an exported folder can only be evaluated."
        )
    there = {key: kind for key, kind in _KNOWN.items() if manifest.get(key) is not None}
    for key, kind in (_EXPECTED | there).items():
        if not isinstance(manifest.get(key), kind):
            found = repr(manifest[key]) if key in manifest else "missing"
            raise UserError(
                f"{path}: not the manifest of a run: {key} is {found}; {kind.__name__} is expected."
            )
    if manifest["schema_version"] > SCHEMA_VERSION:
        raise UserError(
            f"{path}: layout version {manifest['schema_version']} is newer than {SCHEMA_VERSION}, "
            "the newest that this version of Palaestra knows; update Palaestra."
        )
    if manifest["status"] not in STATUS:
        raise UserError(
            f"{path}: status: {manifest['status']!r} is not accepted: {', '.join(STATUS)}."
        )
    for attempt in manifest["attempts"]:
        if not isinstance(attempt, dict) or type(attempt.get("n")) is not int:
            raise UserError(f"{path}: attempts: {attempt!r}: a mapping with n is expected.")
    return {**manifest, "failures": manifest.get("failures") or []}


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _append(path: Path, line: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    """Return plain data as JSON has it: a number that is not finite becomes None."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if hasattr(value, "tolist"):  # of NumPy or torch
        return _finite(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _replace(path: Path, text: str) -> None:
    """Write a file atomically, and never through a link that lies there."""
    temporary = path.with_name(f".{path.name}")
    temporary.unlink(missing_ok=True)
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@functools.cache
def _versions() -> dict[str, Any]:
    """Return the software of this process, as a manifest has it."""
    return {
        "code_version": _code_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return one line, as "torch 2.12.0 -> 2.13.0", for each difference between two `_versions`."""

    def flat(versions: Mapping[str, Any]) -> dict[str, Any]:
        code = versions.get("code_version") or {}
        changed = " (changed)" if code.get("dirty") else ""
        return {
            **(versions.get("packages") or {}),
            "python": versions.get("python"),
            **({"code": f"{code['git_sha']}{changed}"} if code.get("git_sha") else {}),
        }

    old, new = flat(before), flat(now)
    return [
        f"{name} {old[name]} -> {new[name]}"
        for name in sorted(old.keys() & new.keys())
        if old[name] != new[name]
    ]


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
