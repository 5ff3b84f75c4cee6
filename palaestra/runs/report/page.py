"""The page: from the report's data to one offline HTML file."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import yaml

from palaestra.runs.report.curves import Chart
from palaestra.runs.report.data import Report
from palaestra.runs.report.format import number
from palaestra.runs.report.provenance import commands, facts
from palaestra.runs.report.read import Run
from palaestra.runs.report.results import Figure
from palaestra.runs.report.runs_table import anchor, runs_table_html
from palaestra.runs.report.strip import strip_html
from palaestra.runs.report.tables import Column, Row, Table

_SECTIONS = {
    "learning": ("Learning", "Training episodes, agents acting as they learn."),
    "evaluation": ("Evaluation along the way", ""),
    "training": ("Inside the training", ""),
}

_BAND = "Thick: mean over training seeds; band: its 95 % bootstrap interval; thin: each seed."


def render(report: Report) -> str:
    """Return the page as text; whatever comes from the runs is escaped."""
    place = files("palaestra.runs.report")
    return Template(place.joinpath("page.html").read_text(encoding="utf-8")).substitute(
        title=escape(report.title),
        kicker=escape(report.kicker),
        verdict=escape(report.verdict),
        notices=_notices(report.notices),
        sections="\n".join(_sections(report)),
        footer=escape(report.footer),
        data=as_script_data({"charts": report.as_dict()["charts"]}),
        plotly=_plotly(report.charts),
        style=place.joinpath("page.css").read_text(encoding="utf-8"),
        script=place.joinpath("page.js").read_text(encoding="utf-8"),
    )


def as_script_data(data: Any) -> str:
    """Return JSON that cannot end the script element that holds it."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _plotly(charts: Sequence[Chart]) -> str:
    if not charts:
        return ""
    from plotly.offline import get_plotlyjs

    return f"<script>{get_plotlyjs()}</script>"


def _notices(notices: Sequence[str]) -> str:
    if not notices:
        return ""
    items = "".join(f"<li>{escape(notice)}</li>" for notice in notices)
    return f'<ul class="notices" aria-label="Notes on this report">{items}</ul>'


def _sections(report: Report) -> Iterable[str]:
    yield _charts_section(report, "learning")
    yield _tables_section(report.tables)
    yield _charts_section(report, "evaluation")
    yield strip_html(report.strips)
    yield _charts_section(report, "training")
    yield _more_charts(report)
    yield _runs_section(report)


def _charts_section(report: Report, section: str) -> str:
    figures = _figures(report.charts, section)
    if not figures:
        return ""
    title, note = _SECTIONS[section]
    if any(s.band for c in report.charts if c.section == section for s in c.series):
        note = f"{note} {_BAND}".strip()
    note = f'<p class="note">{note}</p>' if note else ""
    if section == "learning":
        note += (
            "<noscript><p>The curves need JavaScript; report-curves.png beside this page "
            "shows them too.</p></noscript>"
        )
    return f'<section><h2>{title}</h2>{note}<div class="charts">{figures}</div></section>'


def _more_charts(report: Report) -> str:
    figures = _figures(report.charts, "more")
    if not figures:
        return ""
    return f'<details><summary>More metrics</summary><div class="charts">{figures}</div></details>'


def _figures(charts: Sequence[Chart], section: str) -> str:
    return "".join(
        f"<figure><h3>{escape(chart.title)}</h3>"
        f'<div class="plot" data-chart="{index}" role="img" '
        f'aria-label="{escape(_described(chart))}"></div></figure>'
        for index, chart in enumerate(charts)
        if chart.section == section
    )


def _described(chart: Chart) -> str:
    """Return a chart's content in words, for those who do not see it."""
    ends = [f"{series.label} ends at {number(series.last)}" for series in chart.series]
    levels = [f"{level.label} at {number(level.value)}" for level in chart.levels]
    return f"{chart.title} over agent steps: {'; '.join(ends + levels)}."


def _tables_section(tables: Sequence[Table]) -> str:
    """Return the tables of whole suites or single tasks, then those by task, folded."""
    parts = []
    for suite in dict.fromkeys(table.suite for table in tables):
        main, *others = [table for table in tables if table.suite == suite]
        by_task = [table_html(table, "h3") for table in others]
        parts.append(table_html(main))
        if by_task:
            parts.append(f"<details><summary>By task</summary>{''.join(by_task)}</details>")
    return "".join(parts)


def table_html(table: Table, heading: str = "h2") -> str:
    """Return a sortable table with its heading, its notes and, folded, the rows of each seed."""
    seeds = "".join(_seeds_html(table, row) for row in table.rows if row.by_run)
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in table.notes)
    grid = _grid(table, "Agent")
    return f"<section><{heading}>{escape(table.title)}</{heading}>{notes}{grid}{seeds}</section>"


def _seeds_html(table: Table, row: Row) -> str:
    """Return the rows of a group's seeds; among them none is marked as the best."""
    title = f"{row.agent} by training seed"
    columns = [replace(column, better="") for column in table.columns]
    seeds = replace(table, title=f"{table.title}: {title}", columns=columns, rows=row.by_run)
    note = '<p class="note">Each with intervals over its own evaluation seeds.</p>'
    return f"<details><summary>{escape(title)}</summary>{note}{_grid(seeds, 'Seed')}</details>"


def _grid(table: Table, first: str) -> str:
    head = "".join(_head(column) for column in table.columns)
    several = any(row.by_run for row in table.rows)
    body = "".join(
        f'<tr class="{"trained" if row.trained else "reference"}">{_row_name(row, several)}'
        + "".join(_cell(row.cells.get(column.key), column, table) for column in table.columns)
        + "</tr>"
        for row in table.rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(table.title)}">'
        '<table class="wide"><thead><tr>'
        f'<th scope="col"><button type="button">{first}</button></th>{head}'
        f"</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row_name(row: Row, several: bool) -> str:
    """Return the first cell: what is resampled below the agent; a seed leads to its run."""
    name = escape(row.agent)
    if not row.trained and row.runs:
        name = f'<a href="#{anchor(next(iter(row.runs)))}">{name}</a>'
    units = f' <span class="interval">{escape(row.over)}</span>' if several else ""
    return f'<th scope="row" data-value="{escape(row.agent)}">{name}{units}</th>'


def _head(column: Column) -> str:
    return (
        f'<th scope="col" title="{escape(column.meaning)}">'
        f'<button type="button">{escape(column.label)}</button></th>'
    )


def _cell(cell: Figure | None, column: Column, table: Table) -> str:
    if cell is None or not math.isfinite(cell.value):
        return '<td data-value="">&ndash;</td>'
    best = ' class="best"' if cell.value == table.best(column) else ""
    text = f"<span>{number(cell.value, column.digits)}</span>"
    if cell.low is not None and cell.high is not None:
        low, high = number(cell.low, column.digits), number(cell.high, column.digits)
        text += f' <span class="interval">[{low}, {high}]</span>'
    return f'<td data-value="{cell.value!r}"{best}>{text}</td>'


def _runs_section(report: Report) -> str:
    runs = report.runs
    if len(runs) == 1:
        return f"<section><h2>The run</h2>{_run_html(runs[0])}</section>"
    folded = "".join(
        f"<details><summary>{escape(run.name)}</summary>"
        f'<div id="{anchor(run.name)}">{_run_html(run)}</div></details>'
        for run in runs
    )
    return f"<section><h2>The runs</h2>{runs_table_html(report)}{folded}</section>"


def _run_html(run: Run) -> str:
    listed = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts(run).items()
    )
    config = yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True)
    return (
        f'<dl class="facts">{listed}</dl>'
        f"<h3>To reproduce</h3><pre>{escape(chr(10).join(commands(run)))}</pre>"
        f"<details><summary>Configuration</summary><pre>{escape(config)}</pre></details>"
    )
