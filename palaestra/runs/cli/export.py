"""The verb `export`."""

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run by id or path.")],
    out: Annotated[
        Path | None,
        typer.Option(help="The folder to write (default: export/AGENT-ENV in the run's folder)."),
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="A checkpoint by name, or best (default: the newest).")
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes of the replay.")] = 3,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an export that is already there.")
    ] = False,
    allow_plugin: Annotated[
        list[str] | None,
        typer.Option(help="Module that a run from elsewhere may import; repeatable."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else.")
    ] = False,
) -> None:
    """Write a folder to give away: weights, configuration, results, a card, a replay."""
    from palaestra.runs.export.write import export_named

    export_named(
        run,
        out,
        checkpoint=checkpoint,
        episodes=episodes,
        force=force,
        allow_plugins=allow_plugin or (),
        as_json=as_json,
    )
