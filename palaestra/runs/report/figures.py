"""The report's pictures as PNG files: curves, what was evaluated, and the first episode trace."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from palaestra.runs.report.curves import Chart
from palaestra.runs.report.data import Report
from palaestra.runs.report.picture import HUES, picture, plain
from palaestra.runs.report.tables import Table, main_tables
from palaestra.runs.report.views import view_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DASHES = ("--", ":", "-.", (0, (8, 3)), (0, (8, 3, 1, 3)))
_COLUMNS = 2
_MOST_CHARTS = 8


def figures(report: Report) -> dict[str, bytes | None]:
    """Return the content of `curves`, `evaluation` and `trace`, None where there is no data."""
    charts = [chart for chart in report.charts if chart.section != "more"] or report.charts
    trace = report.traces[0] if report.traces else None
    view = view_of(trace) if trace else None
    return {
        "curves": _curves(charts[:_MOST_CHARTS]) if charts else None,
        "evaluation": _evaluation(main_tables(report.tables)) if report.tables else None,
        "trace": view.png(trace) if trace and view else None,
    }


def _curves(charts: Sequence[Chart]) -> bytes:
    columns = min(_COLUMNS, len(charts))
    rows = -(-len(charts) // columns)

    def draw(figure: "Figure") -> None:
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat[len(charts) :]:
            axes.set_visible(False)
        for axes, chart in zip(grid.flat, charts, strict=False):
            _curve(axes, chart)

    return picture(5.2 * columns, 3.0 * rows, draw)


def _curve(axes: "Axes", chart: Chart) -> None:
    from matplotlib.ticker import EngFormatter

    points = "o" if chart.section == "evaluation" else None
    for i, series in enumerate(chart.series):
        hue, band = HUES[i % len(HUES)], series.band
        for line in series.lines if band is None or len(series.lines) > 1 else ():
            if band is None:
                marker = "o" if len(line.x) == 1 else points
                axes.plot(line.x, line.y, color=hue, lw=1.4, marker=marker, label=series.label)
            else:
                axes.plot(line.x, line.y, color=hue, lw=0.6, alpha=0.35)
        if band is not None:
            label = f"{series.label} ({band.over})"
            axes.fill_between(band.x, band.low, band.high, color=hue, alpha=0.16, lw=0)
            axes.plot(band.x, band.mean, color=hue, lw=1.8, marker=points, ms=4, label=label)
    for j, level in enumerate(chart.levels):
        hue = HUES[(len(chart.series) + j) % len(HUES)]
        dash: Any = _DASHES[j % len(_DASHES)]
        axes.axhline(level.value, color=hue, lw=1, ls=dash, label=level.label)
    axes.set_title(chart.title, fontsize=10, loc="left")
    axes.set_xlabel("agent steps", fontsize=8)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    plain(axes)
    if len(chart.series) + len(chart.levels) > 1:
        axes.legend(fontsize=7, framealpha=0.8, edgecolor="none")


def _evaluation(tables: Sequence[Table]) -> bytes:
    """Draw each suite's main figure by agent, with its interval."""
    heights = [0.9 + 0.34 * len(table.rows) for table in tables]

    def draw(figure: "Figure") -> None:
        grid = figure.subplots(len(tables), 1, squeeze=False, height_ratios=heights)
        for axes, table in zip(grid.flat, tables, strict=True):
            _dots(axes, table)

    return picture(6.4, sum(heights), draw)


def _dots(axes: "Axes", table: Table) -> None:
    column = table.primary
    rows = [row for row in table.rows if column.key in row.cells][::-1]
    for y, row in enumerate(rows):
        figure = row.cells[column.key]
        hue = HUES[0] if row.trained else "#5c646e"
        axes.plot(figure.bounds, (y, y), color=hue, lw=2.2, solid_capstyle="butt")
        runs = [of_run.value for of_run in figure.by_run.values()]
        axes.plot(runs, [y] * len(runs), "|", color=hue, ms=9, mew=1, alpha=0.6)
        axes.plot(figure.value, y, "o", color=hue, ms=5)
    axes.set_yticks(range(len(rows)), [row.agent for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    better = f" ({column.better} is better)" if column.better else ""
    axes.set_title(f"{table.task or table.suite}: {column.label}{better}", fontsize=10, loc="left")
    plain(axes, "x")
