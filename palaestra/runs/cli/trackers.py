"""The verbs `track` and `ui`; the trackers are imported inside."""

import json
import signal
import sys
from types import FrameType
from typing import Annotated

import typer


def track(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs by id or path.")],
    to: Annotated[
        list[str], typer.Option("--to", help="tensorboard, mlflow or wandb; repeatable.")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else.")
    ] = False,
) -> None:
    """Show runs in TensorBoard, MLflow or W&B, in place of what these have of them."""
    from palaestra.runs.store.record import RunRecord
    from palaestra.runs.trackers import replay, require_trackers

    names = require_trackers(to)
    records = [RunRecord.open(run) for run in runs]
    for record in records:
        replay(record, names)
        print(f"run {record.id}: {', '.join(names)}", file=sys.stderr)
    if as_json:
        print(json.dumps({"runs": [record.id for record in records], "trackers": names}))


def ui(
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the page on this machine.")
    ] = 5000,
    sync: Annotated[
        bool, typer.Option("--sync/--no-sync", help="Bring new and changed runs to MLflow first.")
    ] = True,
) -> None:
    """Show all runs in MLflow's web page, which this machine alone can open."""
    from palaestra.runs.store.folder import RUNS
    from palaestra.runs.trackers import ui as page

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)  # so that the server ends with this process
    page.check_port(port)
    if sync:
        page.sync(RUNS, lambda message: print(message, file=sys.stderr, flush=True))
    else:
        page.find_runs_in(RUNS)
    try:
        with page.server(RUNS, port) as child:
            print(f"http://{page.HOST}:{port}", flush=True)
            print("Ctrl-C ends it.", file=sys.stderr, flush=True)
            raise typer.Exit(child.wait())
    except KeyboardInterrupt:
        print("ended", file=sys.stderr)
