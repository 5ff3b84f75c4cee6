"""The report's evaluation tables on a terminal: groups of runs beside the baselines."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as Grid

from palaestra.runs.report.data import gather
from palaestra.runs.report.estimate import Estimate
from palaestra.runs.report.format import number
from palaestra.runs.report.read import Run
from palaestra.runs.report.tables import Column, Table

_WIDE_ENOUGH = 150
"""Columns from which on intervals stand beside their values, not below; used for files too."""


def print_groups(runs: Sequence[Run], console: Console) -> None:
    """Print one table a suite, with 95 % intervals, what they resample, and every notice."""
    report = gather(runs)
    print_tables(report.tables, console)
    if not report.tables:
        console.print(report.verdict, highlight=False)
    for notice in report.notices:
        console.print(f"warning: {notice}", style="yellow", highlight=False, markup=False)


def print_tables(tables: Sequence[Table], console: Console) -> None:
    """Print the tables of each suite as one, and how its figures came about."""
    if not console.is_terminal:
        console.width = _WIDE_ENOUGH
    wide = console.width >= _WIDE_ENOUGH
    for suite in dict.fromkeys(table.suite for table in tables):
        found = [table for table in tables if table.suite == suite]
        console.print(_grid(suite, found, wide))
        for note in found[0].notes:
            console.print(note, style="dim", highlight=False)


def _grid(suite: str, tables: Sequence[Table], wide: bool) -> Grid:
    """Return a row for each task and agent; the table over all tasks comes last."""
    known = {column.key: column for table in tables for column in table.columns}
    primary = tables[-1].primary.key
    by_weight = dict.fromkeys(("score_iqm", primary, "known", f"{primary}_iqm", "score"))
    columns = [known[key] for key in by_weight if key in known][: None if wide else 2]
    gap = " " if wide else "\n"
    grid = Grid(title=f"suite {suite}")
    for name in ("task", "agent"):
        grid.add_column(name, no_wrap=True)
    grid.add_column("intervals over", no_wrap=wide)
    for column in columns:
        grid.add_column(column.label, justify="right", no_wrap=True)
    for table in sorted(tables, key=lambda table: not table.task):
        task = table.task.partition("/")[2] or table.task or "all tasks"
        for i, row in enumerate(table.rows):
            cells = [_cell(row.cells.get(column.key), column, gap) for column in columns]
            grid.add_row("" if i else task, row.agent, row.over, *cells)
        grid.add_section()
    return grid


def _cell(figure: Estimate | None, column: Column, gap: str) -> str:
    if figure is None:
        return ""
    value = number(figure.value, column.digits)
    if figure.low is None or figure.high is None:
        return value
    low, high = number(figure.low, column.digits), number(figure.high, column.digits)
    return f"{value}{gap}[{low}, {high}]"
