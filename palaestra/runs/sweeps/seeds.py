"""Several seeds of one experiment: each a run of its own in a Ray task, all of them in one report.

The run folders carry everything between the tasks and this process: progress is read from them and
a stop is requested in them, so the same code serves one machine and a cluster with shared storage.
"""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from rich.console import Console

from palaestra.errors import UserError
from palaestra.runs.config import RunConfig, default_run_id
from palaestra.runs.progress import say
from palaestra.runs.rollouts.remote import connect
from palaestra.runs.store.folder import RUNS, RunFolder
from palaestra.runs.sweeps.run import SeedRun
from palaestra.runs.sweeps.tasks import SeedTasks
from palaestra.runs.training.train import Resume, build_loop


def train_seeds(
    config: RunConfig,
    count: int,
    *,
    run_id: str | None = None,
    resume: Resume = "never",
    override_config: bool = False,
    parallel: int | None = None,
    as_json: bool = False,
) -> int:
    """Train `count` seeds side by side, evaluate each, and write one report about all of them.

    Args:
      config: of the first seed; the others differ in the seed alone.
      count: user seeds `config.seed`, `config.seed + 1`, ...
      run_id: the runs are called `<run_id>-s<seed>`; None derives each name from its options.
      resume: "auto" keeps finished runs and continues the others, "must" wants all of them to
        exist, "never" none.
      override_config: resume although the configuration differs from the runs'.
      parallel: seeds trained at the same time; None takes as many as there are CPUs for.
      as_json: print one JSON object instead of the table.

    Returns:
      The exit code: 0, 1 where a seed failed, 130 where the training was interrupted.

    Raises:
      UserError: a run exists, the options do not fit together, or no seed accepts its options.
    """
    _check(config, count, parallel)
    runs = seed_runs(config, count, run_id)
    for run in runs:
        if resume == "never":
            RunFolder.check_free(run.run_id)
        elif resume == "must":
            RunFolder.open(run.path)
    build_loop(config).close()  # what the options can get wrong fails here, before anything starts
    say(f"{config.experiment}: seeds {runs[0].config.seed} to {runs[-1].config.seed}")
    owns_ray = connect(config.rollout.address, config.threads * (parallel or 1))
    try:
        places = _side_by_side(config, count, parallel)
        tasks = SeedTasks(runs, places, resume=resume, override_config=override_config)
        interrupted = tasks.run()
    finally:
        if owns_ray:
            ray.shutdown()
    if all(run.bad_input for run in runs):
        raise UserError(runs[0].error)
    if interrupted:
        say(_how_to_resume(runs, run_id, parallel))
    return _conclude(runs, as_json, with_report=not interrupted)


def seed_runs(config: RunConfig, count: int, run_id: str | None = None) -> list[SeedRun]:
    """Return the run of each seed: its configuration, id and folder."""
    configs = [config.model_copy(update={"seed": config.seed + i}) for i in range(count)]
    ids = [f"{run_id}-s{c.seed}" if run_id else default_run_id(c) for c in configs]
    return [SeedRun(c, id, RUNS / id) for c, id in zip(configs, ids, strict=True)]


def _check(config: RunConfig, count: int, parallel: int | None) -> None:
    for name, value in (("--seeds", count), ("--parallel", parallel)):
        if value is not None and value < 1:
            raise UserError(f"{name}: {value} is not accepted; expected a number from 1 on.")
    if config.rollout.workers and config.rollout.backend == "ray":
        raise UserError(
            f"rollout.workers: {config.rollout.workers} Ray workers do not go together with "
            "several seeds; use --workers 0, each seed is a Ray task already."
        )


def _side_by_side(config: RunConfig, count: int, parallel: int | None) -> int:
    """Return how many seeds run at once; say so where it is fewer than there are.

    Raises:
      UserError: no machine of the cluster has as many CPUs as a seed has threads.
    """
    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    places = sum(int(cpus // config.threads) for cpus in nodes)
    if not places:
        raise UserError(
            f"threads: {config.threads} are wanted for each seed, but no machine has more than "
            f"{int(max(nodes))} CPUs; use -o threads={int(max(nodes)) or 1}."
        )
    chosen = min(count, places, parallel or places)
    if chosen < count:
        say(f"  {chosen} at a time, each with {config.threads} of {int(sum(nodes))} CPUs")
    return chosen


def _how_to_resume(runs: Sequence[SeedRun], run_id: str | None, parallel: int | None) -> str:
    if runs[0].record is None:
        return "stopped before the first seed began."
    command = ["palaestra", "train", str(runs[0].path / "config.yaml"), "--seeds", str(len(runs))]
    command += ["--run-id", run_id] if run_id else []
    command += ["--parallel", str(parallel)] if parallel else []
    return f"stopped. Resume with: {shlex.join([*command, '--resume', 'auto'])}"


def _conclude(runs: Sequence[SeedRun], as_json: bool, with_report: bool) -> int:
    """Write the report, print the table or the JSON object, and return the exit code."""
    from palaestra.runs.report import write_report
    from palaestra.runs.report.build import page_name
    from palaestra.runs.report.terminal import print_groups

    page, begun = None, [record.run() for run in runs if (record := run.record)]
    if with_report and begun:
        page = write_report(begun, RUNS / page_name([runs[0].config.experiment]))
        if not as_json:
            print_groups(begun, Console())
        say(f"report: {page}")
    if as_json:
        print(json.dumps(_as_json(runs, page)))
    statuses = {run.status for run in runs}
    if "failed" in statuses:
        return 1
    return 0 if statuses == {"succeeded"} else 130


def _as_json(runs: Sequence[SeedRun], page: Path | None) -> dict[str, Any]:
    data = json.loads(page.with_suffix(".json").read_text("utf-8")) if page else {"tables": []}
    return {
        "experiment": runs[0].config.experiment,
        "runs": [
            {
                "run_id": run.run_id,
                "seed": run.config.seed,
                "status": run.status,
                "path": str(run.path),
                "error": run.error or None,
            }
            for run in runs
        ],
        "tables": data["tables"],
        "report": str(page) if page else None,
    }
