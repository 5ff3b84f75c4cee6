"""The table of runs: how each one stands, how far it came and what it reached."""

import math
from collections.abc import Sequence

from palaestra.runs.report.format import decimals, duration
from palaestra.runs.report.provenance import final_return, seconds
from palaestra.runs.report.read import Run
from palaestra.runs.report.tables import Cell, Grid, Line, Table, main_tables, shown


def runs_grid(runs: Sequence[Run], tables: Sequence[Table]) -> Grid:
    """Return a row for each run, its name leading to the run's own part of the page."""
    columns = [("Training return", "mean over the last tenth", [final_return(r) for r in runs])]
    for table in main_tables(tables):
        label = table.primary.label
        name = f"{table.suite}: {label[0].lower()}{label[1:]}"
        where = f"on {table.task or f'suite {table.suite}'}"
        columns.append((name, where, [_reached(table, run) for run in runs]))
    columns = [c for c in columns if any(value is not None for value in c[2])]
    figures = [_numbers(values) for _, _, values in columns]
    heads = [(name, "") for name in ("Run", "Seed", "Status", "Agent steps", "Time")]
    lines = [
        Line(_kind(run), [*_identity(run), *cells])
        for run, *cells in zip(runs, *figures, strict=True)
    ]
    return Grid("The runs", heads + [(name, meaning) for name, meaning, _ in columns], lines)


def _kind(run: Run) -> str:
    return "" if run.status in ("", "succeeded") else "unfinished"


def _identity(run: Run) -> list[Cell]:
    time, status = seconds(run), run.status or "not recorded"
    return [
        Cell(run.name, "", run.name, run=run.name),
        Cell() if run.seed is None else Cell(str(run.seed), "", run.seed),
        Cell(status, "", status),
        Cell(f"{run.steps:,}", "", run.steps),
        Cell(duration(time), "", time) if time else Cell(),
    ]


def _numbers(values: Sequence[float | None]) -> list[Cell]:
    digits = decimals(value for value in values if value is not None)
    return [shown(math.nan if value is None else value, digits) for value in values]


def _reached(table: Table, run: Run) -> float | None:
    """Return the run's own figure by which the table compares agents."""
    for row in table.rows:
        cell = row.cells.get(table.primary.key)
        if run.name in row.runs and cell is not None:
            return cell.by_run[run.name].value if cell.by_run else cell.value
    return None
