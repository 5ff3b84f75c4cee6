"""The report's pictures as PNG files, drawn without a display and without global state."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palaestra.runs.report.curves import Chart
from palaestra.runs.report.data import Report
from palaestra.runs.report.strip import BanditEpisode, Game
from palaestra.runs.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HUES = ("#2a62c9", "#c4601a", "#1d8562", "#a83a80", "#6d55b8", "#8c6a1c", "#337f96", "#b8423f")
_DASHES = ("--", ":", "-.", (0, (8, 3)), (0, (8, 3, 1, 3)))
_COLUMNS = 2
_MOST_CHARTS = 8


def write_figures(report: Report, stem: Path) -> list[Path]:
    """Write `<stem>-curves.png`, `-evaluation.png` and `-strip.png` as far as there is data.

    A picture of an earlier report that has no data now is removed.
    """
    main = [chart for chart in report.charts if chart.section != "more"] or report.charts
    drawn = {
        "curves": _curves(main[:_MOST_CHARTS]) if main else None,
        "evaluation": _evaluation(report.tables) if report.tables else None,
        "strip": _strip(report.strips[0]) if report.strips else None,
    }
    written = []
    for name, figure in drawn.items():
        path = stem.with_name(f"{stem.name}-{name}.png")
        path.unlink(missing_ok=True)
        if figure is not None:
            figure.savefig(path, dpi=150)
            written.append(path)
    return written


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _plain(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.set_axisbelow(True)


def _curves(charts: Sequence[Chart]) -> "Figure":
    columns = min(_COLUMNS, len(charts))
    rows = -(-len(charts) // columns)
    figure = _figure(5.2 * columns, 3.0 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(charts) :]:
        axes.set_visible(False)
    for axes, chart in zip(grid.flat, charts, strict=False):
        _curve(axes, chart)
    return figure


def _curve(axes: "Axes", chart: Chart) -> None:
    from matplotlib.ticker import EngFormatter

    for i, series in enumerate(chart.series):
        hue = _HUES[i % len(_HUES)]
        for line in series.lines:
            if series.band is None:
                marker = "o" if len(line.x) == 1 else None
                axes.plot(line.x, line.y, color=hue, lw=1.4, marker=marker, label=series.label)
            else:
                axes.plot(line.x, line.y, color=hue, lw=0.6, alpha=0.35)
        if series.band is not None:
            band = series.band
            label = f"{series.label} ({series.seeds})"
            axes.fill_between(band.x, band.low, band.high, color=hue, alpha=0.16, lw=0)
            axes.plot(band.x, band.mean, color=hue, lw=1.8, label=label)
    for j, level in enumerate(chart.levels):
        hue = _HUES[(len(chart.series) + j) % len(_HUES)]
        dash: Any = _DASHES[j % len(_DASHES)]
        axes.axhline(level.value, color=hue, lw=1, ls=dash, label=level.label)
    axes.set_title(chart.title, fontsize=10, loc="left")
    axes.set_xlabel("agent steps", fontsize=8)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(color="#e4e6e9", lw=0.6)
    _plain(axes)
    if len(chart.series) + len(chart.levels) > 1:
        axes.legend(fontsize=7, framealpha=0.8, edgecolor="none")


def _evaluation(tables: Sequence[Table]) -> "Figure":
    """Each suite's main figure by agent, with its interval."""
    mains = list({table.suite: table for table in reversed(tables)}.values())[::-1]
    heights = [0.9 + 0.34 * len(table.rows) for table in mains]
    figure = _figure(6.4, sum(heights))
    grid = figure.subplots(len(mains), 1, squeeze=False, height_ratios=heights)
    for axes, table in zip(grid.flat, mains, strict=True):
        _dots(axes, table)
    return figure


def _dots(axes: "Axes", table: Table) -> None:
    column = table.primary
    rows = [row for row in table.rows if column.key in row.cells][::-1]
    for y, row in enumerate(rows):
        figure = row.cells[column.key]
        hue = _HUES[0] if row.trained else "#5c646e"
        axes.plot(figure.bounds, (y, y), color=hue, lw=2.2, solid_capstyle="butt")
        runs = [of_run.value for of_run in figure.by_run.values()]
        axes.plot(runs, [y] * len(runs), "|", color=hue, ms=9, mew=1, alpha=0.6)
        axes.plot(figure.value, y, "o", color=hue, ms=5)
    axes.set_yticks(range(len(rows)), [row.agent for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    better = f" ({column.better} is better)" if column.better else ""
    axes.set_title(f"{table.task or table.suite}: {column.label}{better}", fontsize=10, loc="left")
    axes.grid(axis="x", color="#e4e6e9", lw=0.6)
    _plain(axes)


def _strip(strip: BanditEpisode | Game) -> "Figure":
    return _bandit(strip) if isinstance(strip, BanditEpisode) else _game(strip)


def _bandit(episode: BanditEpisode) -> "Figure":
    """Rows of cells, the greener the better the arm; the regret so far below."""
    from matplotlib.colors import LinearSegmentedColormap

    greens = LinearSegmentedColormap.from_list("arms", ["#dfe4ea", "#1f6f5c"])
    rows = len(episode.plays)
    figure = _figure(9.0, 2.6 + 0.34 * rows)
    cells, curves = figure.subplots(2, 1, height_ratios=[0.34 * rows, 1.8], sharex=True)
    for y, play in enumerate(episode.plays):
        shares = [[episode.quality(play, t) for t in range(len(play.actions))]]
        extent = (0, len(play.actions), y + 0.42, y - 0.42)
        cells.imshow(shares, cmap=greens, vmin=0, vmax=1, aspect="auto", extent=extent)
        if episode.length <= 60:
            for t, arm in enumerate(play.actions):
                ink = "white" if shares[0][t] > 0.55 else "#39424c"
                cells.text(t + 0.5, y, str(arm), ha="center", va="center", fontsize=6.5, color=ink)
        total = play.cumulative
        curves.plot(range(len(total) + 1), [0.0, *total], color=_HUES[y % len(_HUES)], lw=1.4)
    for y, play in enumerate(episode.plays):
        curves.plot([], [], color=_HUES[y % len(_HUES)], label=play.agent)
    cells.set_yticks(range(rows), [play.agent for play in episode.plays])
    cells.set_ylim(rows - 0.5, -0.5)
    cells.set_xlim(0, episode.length)
    cells.set_title(episode.title, fontsize=10, loc="left")
    cells.spines[:].set_visible(False)
    cells.tick_params(labelsize=8, length=0, labelbottom=False)
    curves.set_ylabel("regret so far", fontsize=8)
    curves.set_xlabel("step", fontsize=8)
    curves.legend(fontsize=7, frameon=False, loc="upper left")
    curves.grid(color="#e4e6e9", lw=0.6)
    _plain(curves)
    return figure


def _game(game: Game) -> "Figure":
    """The boards of a game in a row; the agent's crosses are coloured."""
    figure = _figure(1.3 * len(game.boards), 1.9)
    for axes, board in zip(
        figure.subplots(1, len(game.boards), squeeze=False).flat, game.boards, strict=True
    ):
        axes.set(xlim=(0, 3), ylim=(3, 0), aspect="equal", xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        for at in (1, 2):
            axes.plot((at, at), (0, 3), color="#9aa4af", lw=1)
            axes.plot((0, 3), (at, at), color="#9aa4af", lw=1)
        for square, owner in enumerate(board.squares):
            if owner:
                marker, hue = ("x", _HUES[0]) if owner == 1 else ("o", "#1d2126")
                bold = 3.0 if square == board.move else 1.8
                axes.plot(
                    square % 3 + 0.5,
                    square // 3 + 0.5,
                    marker,
                    ms=11,
                    mew=bold,
                    mec=hue,
                    mfc="none",
                )
        axes.set_title(board.caption, fontsize=7)
    figure.suptitle(game.title, fontsize=10)
    return figure
