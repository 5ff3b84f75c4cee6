"""The report's evaluation tables on a terminal: groups of runs beside the baselines."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from palaestra.runs.report.data import gather
from palaestra.runs.report.read import Run
from palaestra.runs.report.tables import Grid, Table, suite_grid

_WIDE_ENOUGH = 150
"""Columns from which on intervals stand beside their values, not below; used for files too."""


def print_groups(runs: Sequence[Run], console: Console) -> None:
    """Print one table a suite, with 95 % intervals, what they resample, and every notice."""
    report = gather(runs)
    print_tables(report.tables, console)
    if not report.tables:
        console.print(report.summary, highlight=False, markup=False)
    for notice in report.notices:
        console.print(f"warning: {notice}", style="yellow", highlight=False, markup=False)


def print_tables(tables: Sequence[Table], console: Console) -> None:
    """Print the tables of each suite as one, and how its figures came about."""
    if not console.is_terminal:
        console.width = _WIDE_ENOUGH
    wide = console.width >= _WIDE_ENOUGH
    for suite in dict.fromkeys(table.suite for table in tables):
        found = [table for table in tables if table.suite == suite]
        console.print(rich_table(suite_grid(found, None if wide else 2), wide))
        for note in dict.fromkeys(note for table in found for note in table.notes):
            console.print(note, style="dim", highlight=False, markup=False)


def rich_table(grid: Grid, wide: bool) -> RichTable:
    """Return a suite's grid for a terminal; narrow ones show intervals below their values."""
    table = RichTable(title=escape(grid.title))
    for i, (label, _) in enumerate(grid.heads):
        table.add_column(label, justify="right" if i > 2 else "left", no_wrap=wide or i != 2)
    for i, line in enumerate(grid.lines):
        if i and line.cells[0].text:
            table.add_section()
        gap = " " if wide else "\n"
        table.add_row(*(escape(gap.join(filter(None, (c.text, c.small)))) for c in line.cells))
    return table
