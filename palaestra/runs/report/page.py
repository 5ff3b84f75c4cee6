"""The page: from the report's data to one offline HTML file."""

import re
from collections.abc import Sequence

import yaml
from markupsafe import Markup

from palaestra.runs.report.curves import Chart
from palaestra.runs.report.data import Report
from palaestra.runs.report.format import number
from palaestra.runs.report.provenance import commands, provenance
from palaestra.runs.report.render import script_data, text
from palaestra.runs.report.runs_table import runs_grid
from palaestra.runs.report.shown import record
from palaestra.runs.report.tables import Table, grid, main_tables, seed_grid
from palaestra.runs.report.views import Trace, view_of


def render(report: Report) -> str:
    """Return the page as text; whatever comes from the runs is escaped."""
    suites: list[list[dict[str, object]]] = []
    for table in report.tables:
        if table in main_tables(report.tables):
            suites.append([])
        suites[-1].append(_table(table))
    return text(
        "page.html",
        report=report,
        sections={name: _charts(report.charts, name) for name in _SECTIONS},
        banded={c.section for c in report.charts for s in c.series if len(s.lines) > 1 and s.band},
        suites=suites,
        traces=_traces(report.traces),
        runs=[
            {
                "name": run.name,
                "provenance": provenance(run),
                "commands": "\n".join(commands(run)),
                "config": yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True),
            }
            for run in report.runs
        ],
        runs_grid=runs_grid(report.runs, report.tables),
        anchor=anchor,
        data=script_data({"charts": report.as_dict()["charts"]}),
        plotly=_plotly() if report.charts else "",
        shown=script_data(record(report.runs)),
    )


_SECTIONS = ("learning", "evaluation", "training", "more")


def anchor(name: str) -> str:
    """Return the id of the part of the page that is about one run."""
    return f"run-{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}"


def _plotly() -> Markup:
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())


def _charts(charts: Sequence[Chart], section: str) -> list[tuple[int, str, str]]:
    """Return number, title and content in words of each chart of a section."""
    return [
        (index, chart.title, _described(chart))
        for index, chart in enumerate(charts)
        if chart.section == section
    ]


def _described(chart: Chart) -> str:
    """Return a chart's content in words, for those who do not see it."""
    ends = [f"{series.label} ends at {number(series.last)}" for series in chart.series]
    levels = [f"{level.label} at {number(level.value)}" for level in chart.levels]
    return f"{chart.title} over agent steps: {'; '.join(ends + levels)}."


def _table(table: Table) -> dict[str, object]:
    """Return a table as it is shown, with the folded ones of its training seeds."""
    seeds = [seed_grid(table, row) for row in table.rows if row.by_run]
    return {"grid": grid(table), "notes": table.notes, "seeds": seeds}


def _traces(traces: Sequence[Trace]) -> list[dict[str, str]]:
    """Return note, title and picture of each trace; a note is said once, before its first."""
    found, said = [], set()
    for trace in traces:
        if view := view_of(trace):
            note = "" if view.NOTE in said else view.NOTE
            said.add(view.NOTE)
            found.append({"note": note, "title": trace.title, "picture": view.html(trace)})
    return found
