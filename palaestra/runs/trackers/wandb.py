"""Weights & Biases: files in the run folder, sent nowhere unless WANDB_MODE is `online`."""

import os
import shutil
from collections.abc import Mapping
from typing import Any

from palaestra.errors import UserError
from palaestra.runs.store.record import RunRecord
from palaestra.runs.trackers.base import Tracker, scalars, wall_time


class WandbTracker(Tracker):
    """Writes into `wandb/` of the run folder, which is emptied first; never asks for a login.

    `wandb sync runs/<run-id>/wandb/offline-run-*` sends the files later. The project is the
    environment variable WANDB_PROJECT, or "palaestra"; the group is the experiment.

    Args:
      record: of the run.

    Raises:
      UserError: WANDB_MODE is `online` and no key is known.
    """

    def __init__(self, record: RunRecord) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._record = record
        mode = "online" if os.environ.get("WANDB_MODE") == "online" else "offline"
        if mode == "online" and not wandb.login(prompt=False):
            raise UserError(
                "trackers: WANDB_MODE is 'online' but Weights & Biases knows no key; run "
                "`wandb login` first, or unset WANDB_MODE to write files only."
            )
        shutil.rmtree(record.path / "wandb", ignore_errors=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "palaestra"),
            id=record.id,
            name=record.id,
            group=record.manifest["experiment"],
            dir=str(record.path.resolve()),
            mode=mode,  # type: ignore[arg-type]
            reinit="create_new",
            settings=_settings(),
        )
        # An x-axis of our own, because W&B drops steps that are not in order and evaluations of
        # earlier checkpoints may come late.
        self._run.define_metric("agent_steps", hidden=True)
        self._run.define_metric("*", step_metric="agent_steps")

    def config(self, values: Mapping[str, Any]) -> None:
        """Write the configuration."""
        self._run.config.update(dict(values))  # type: ignore[no-untyped-call]

    def log(self, metrics: Mapping[str, Any], agent_steps: int) -> None:
        """Write one row of history."""
        row = {"agent_steps": agent_steps, "_timestamp": wall_time(self._record.manifest, metrics)}
        self._run.log(row | scalars(metrics))

    def close(self) -> None:
        """Write the rest and whether the run failed."""
        import wandb

        self._run.finish(exit_code=int(RunRecord(self._record.path).status == "failed"))
        if wandb.run is None:  # `finish` does not wait until the file is whole; this does
            wandb.teardown()


def _settings() -> Any:
    """Return settings under which W&B is quiet and records the run alone, not the machine."""
    import wandb

    return wandb.Settings(
        silent=True,
        console="off",
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
