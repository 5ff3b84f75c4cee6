"""Write an export: a folder that holds all that is needed to judge and use a trained agent."""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import palaestra
from palaestra.errors import RunError, UserError
from palaestra.runs.config import RunConfig, config_hash, dump_yaml
from palaestra.runs.evaluation.actors import RunActors
from palaestra.runs.export.card import card
from palaestra.runs.export.layout import (
    CARD,
    CONFIG,
    FORMAT,
    MANIFEST,
    REPLAY,
    RESULTS,
    SCHEMA_VERSION,
    WEIGHTS,
    Manifest,
    facts_of,
    is_export,
    read_manifest,
)
from palaestra.runs.export.pictures import pictures
from palaestra.runs.export.replay import record as play
from palaestra.runs.export.results import results_of
from palaestra.runs.export.weights import to_safetensors
from palaestra.runs.rollouts.statistics import pack
from palaestra.runs.store.checkpoints import Checkpoints
from palaestra.runs.store.files import write_folder
from palaestra.runs.store.folder import RunFolder
from palaestra.runs.store.format import checkpoint_name
from palaestra.runs.store.record import RunRecord

EPISODES = 3
"""Episodes of the replay."""


@dataclass(frozen=True)
class Export:
    """What was written."""

    path: Path
    manifest: Manifest
    notes: list[str]
    """What the replay lacks, and why."""


def write_export(
    run: RunFolder,
    out: Path | None = None,
    *,
    checkpoint: str | None = None,
    episodes: int = EPISODES,
    force: bool = False,
) -> Export:
    """Export one checkpoint of a run.

    The files are written beside their place and then moved there, so that a reader finds a whole
    export or none. The same run gives the same bytes.

    Args:
      run: the run.
      out: the folder to write, by default `export/<agent>-<environment>` in the run's folder.
      checkpoint: name of the checkpoint, or "best"; None means the newest.
      episodes: of the replay.
      force: replace an export that is there.

    Raises:
      UserError: no usable checkpoint, or something is there that is not to be replaced.
      RunError: the disk is full or cannot be written.
    """
    if is_export(run.path):
        raise UserError(
            f"{run.path}: this is an export already; the run that it came from is named "
            f"in its {MANIFEST}."
        )
    config, record = run.config(), RunRecord(run.path)
    name = export_name(record.agent, config.env.id)
    target = (out or run.path / "export" / name).resolve()
    _check_free(target, force)
    files, notes = _files(run, record, config, target.name, checkpoint, episodes)
    manifest = Manifest.model_validate_json(files[MANIFEST])
    try:
        write_folder(files, target)
    except OSError as error:
        raise RunError(f"{target}: the export could not be written: {error}") from error
    return Export(target if out is None else out, manifest, notes)


def export_name(agent: str, env_id: str) -> str:
    """Return `<agent>-<environment>`, which names a folder anywhere."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{agent}-{env_id.rpartition('/')[2]}")


def _check_free(target: Path, force: bool) -> None:
    """Raise `UserError` unless `target` is free, empty, or an export that may be replaced."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    try:
        read_manifest(target)
    except UserError:
        raise UserError(
            f"{target}: it is there and no export, so it is never replaced; choose another --out."
        ) from None
    if not force:
        raise UserError(f"{target}: this export exists; --force replaces it. Nothing was changed.")


def _files(
    run: RunFolder,
    record: RunRecord,
    config: RunConfig,
    name: str,
    checkpoint: str | None,
    episodes: int,
) -> tuple[dict[str, bytes], list[str]]:
    """Return name -> content of every file, and what has to be said about the replay."""
    step = Checkpoints(run.checkpoints).step(checkpoint)
    actors = RunActors(run, checkpoint_name(step))
    replay = play(config, actors, episodes)
    drawn = pictures(replay)
    results = results_of(record, step)
    files = {
        WEIGHTS: to_safetensors(pack(actors.weights, actors.statistics)),
        CONFIG: dump_yaml(_without_address(config)).encode(),
        RESULTS: _json(results),
        REPLAY: replay.lines().encode(),
        **drawn,
        CARD: card(name, config, results, list(drawn), replay.notes).encode(),
    }
    manifest = Manifest(
        format=FORMAT,
        schema_version=SCHEMA_VERSION,
        palaestra=palaestra.__version__,
        run_id=record.id,
        agent=record.agent,
        env_id=config.env.id,
        checkpoint=checkpoint_name(step),
        agent_steps=step,
        config_hash=config_hash(config),
        files={file: facts_of(content) for file, content in sorted(files.items())},
    )
    return files | {MANIFEST: _json(manifest.model_dump())}, replay.notes


def _without_address(config: RunConfig) -> RunConfig:
    """Return the configuration without the cluster's address, which is nobody else's business."""
    rollout = config.rollout.model_copy(update={"address": None})
    return config.model_copy(update={"rollout": rollout})


def _json(data: Any) -> bytes:
    return (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode()


def export_named(
    run: str,
    out: Path | None,
    *,
    checkpoint: str | None,
    episodes: int,
    force: bool,
    allow_plugins: Sequence[str] = (),
    as_json: bool,
) -> None:
    """Export a run by id or path, and print the folder or one JSON object."""
    folder = RunFolder.open(run, allow_plugins=allow_plugins)
    export = write_export(folder, out, checkpoint=checkpoint, episodes=episodes, force=force)
    if as_json:
        facts = export.manifest.model_dump() | {"path": str(export.path), "notes": export.notes}
        print(json.dumps(facts))
        return
    for note in export.notes:
        print(note, file=sys.stderr)
    print(export.path)
