"""The verbs about jobs on a Ray cluster: submit, jobs, status, logs, stop."""

from pathlib import Path
from typing import Annotated

import typer

_ADDRESS = "http://127.0.0.1:8265"

Address = Annotated[str, typer.Option(help="Dashboard of the Ray cluster, as http://host:port.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Storage = Annotated[
    Path | None,
    typer.Option(
        help="The runs directory, by default ./runs. Every node of the cluster has to see it under "
        "the same absolute path: checkpoints and metrics are written there."
    ),
]
Name = Annotated[str, typer.Argument(metavar="RUN|ID", help="A run id, or a submission id.")]


def submit(
    source: Annotated[str, typer.Argument(metavar="PRESET|FILE", help="A preset or a .yaml file.")],
    override: Annotated[
        list[str] | None,
        typer.Option(
            "-o", "--override", help="key=value, as agent.learning_rate=1e-3; repeatable."
        ),
    ] = None,
    run_id: Annotated[
        str | None, typer.Option(help="Name of the run; by default it follows from the options.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The seed of everything.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Rollout workers in the cluster; 0 collects in the job.")
    ] = None,
    address: Address = _ADDRESS,
    storage: Storage = None,
    include: Annotated[
        list[Path] | None,
        typer.Option(
            help="File or folder of the working directory that the run needs; repeatable."
        ),
    ] = None,
    cpus: Annotated[
        float, typer.Option(min=0, help="CPUs reserved for the process that learns.")
    ] = 0,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Print what the job prints until it ends.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and show what would be sent; send nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Submit a run to a Ray cluster; submitting it again attaches to it or resumes it."""
    from palaestra.runs.config import load_config
    from palaestra.runs.jobs.submit import prepare, show_plan, submit_and_show
    from palaestra.runs.store.folder import RUNS

    config = load_config(source, override or (), seed=seed, rollout__workers=workers)
    job = prepare(config, run_id, storage=storage or RUNS, include=include or (), cpus=cpus)
    if dry_run:
        show_plan(job, as_json)
        return
    raise typer.Exit(submit_and_show(job, address, follow_job=follow, as_json=as_json))


def jobs(address: Address = _ADDRESS, as_json: AsJson = False) -> None:
    """List the runs that were submitted to a Ray cluster."""
    from palaestra.runs.jobs.status import show_jobs

    show_jobs(address, as_json)


def status(
    name: Name, address: Address = _ADDRESS, storage: Storage = None, as_json: AsJson = False
) -> None:
    """Show how a run stands; from its folder where no cluster answers."""
    from palaestra.runs.jobs.status import show_status
    from palaestra.runs.store.folder import RUNS

    show_status(name, address, storage or RUNS, as_json)


def logs(
    name: Name,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Continue printing until the run ends.")
    ] = False,
    address: Address = _ADDRESS,
    storage: Storage = None,
) -> None:
    """Print what a run has printed; from its folder where no cluster answers."""
    from palaestra.runs.jobs.status import show_logs
    from palaestra.runs.store.folder import RUNS

    raise typer.Exit(show_logs(name, address, storage or RUNS, follow_run=follow))


def stop(name: Name, address: Address = _ADDRESS, storage: Storage = None) -> None:
    """Stop a run after its current update, with a checkpoint; submitting it again resumes it."""
    from palaestra.runs.jobs.status import stop_run
    from palaestra.runs.store.folder import RUNS

    stop_run(name, address, storage or RUNS)
