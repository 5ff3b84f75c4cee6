"""The table of runs: how each one stands, how far it came and what it reached."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from palaestra.runs.report.data import Report
from palaestra.runs.report.format import decimals, duration, number
from palaestra.runs.report.provenance import final_return, seconds
from palaestra.runs.report.read import Run
from palaestra.runs.report.results import Figure
from palaestra.runs.report.tables import Table


@dataclass(frozen=True)
class _Column:
    """One figure of the runs."""

    label: str
    meaning: str
    values: list[float | None]

    def cell(self, i: int) -> str:
        """Return the cell of the i-th run."""
        value = self.values[i]
        if value is None:
            return '<td data-value="">&ndash;</td>'
        digits = decimals(v for v in self.values if v is not None)
        return f'<td data-value="{value!r}">{number(value, digits)}</td>'


def anchor(name: str) -> str:
    """Return the id of the part of the page that is about one run."""
    return f"run-{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}"


def runs_table_html(report: Report) -> str:
    """Return a sortable table of the runs, each name leading to the run's own part."""
    columns = _columns(report)
    names = ("Run", "Seed", "Status", "Agent steps", "Time")
    head = "".join(f'<th scope="col"><button type="button">{name}</button></th>' for name in names)
    head += "".join(
        f'<th scope="col" title="{escape(c.meaning)}"><button type="button">{escape(c.label)}'
        "</button></th>"
        for c in columns
    )
    body = "".join(_row(i, run, columns) for i, run in enumerate(report.runs))
    return (
        '<div class="scroll" role="region" tabindex="0" aria-label="The runs">'
        f'<table class="wide"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _row(i: int, run: Run, columns: Sequence[_Column]) -> str:
    name, status = escape(run.name), escape(run.status or "not recorded")
    link = f'<a href="#{anchor(run.name)}">{name}</a>'
    seed = "" if run.seed is None else str(run.seed)
    time = seconds(run)
    kind = "" if run.status in ("", "succeeded") else ' class="unfinished"'
    return (
        f'<tr{kind}><th scope="row" data-value="{name}">{link}</th>'
        f'<td data-value="{seed}">{seed or "&ndash;"}</td>'
        f'<td data-value="{status}" title="{escape(run.reason)}">{status}</td>'
        f'<td data-value="{run.steps}">{run.steps:,}</td>'
        f'<td data-value="{time}">{duration(time) if time else "&ndash;"}</td>'
        + "".join(column.cell(i) for column in columns)
        + "</tr>"
    )


def _columns(report: Report) -> list[_Column]:
    returns = [final_return(run) for run in report.runs]
    found = [_Column("Training return", "mean over the last tenth of the training", returns)]
    mains = list({table.suite: table for table in reversed(report.tables)}.values())[::-1]
    for table in mains:
        values = [_reached(table, run) for run in report.runs]
        figure = table.primary.label
        label = f"{table.suite}: {figure[0].lower()}{figure[1:]}"
        found.append(_Column(label, f"on {table.task or f'suite {table.suite}'}", values))
    return [column for column in found if any(value is not None for value in column.values)]


def _reached(table: Table, run: Run) -> float | None:
    """Return the run's own figure by which the table compares agents."""
    for row in table.rows:
        cell: Figure | None = row.cells.get(table.primary.key)
        if run.name in row.runs and cell is not None:
            return cell.by_run[run.name].value if cell.by_run else cell.value
    return None
