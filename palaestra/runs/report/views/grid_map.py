"""A grid map: what kind of cell is where, and the path of whoever walked over it."""

from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from palaestra.runs.report.picture import HUES, bare, picture
from palaestra.runs.report.render import fill
from palaestra.runs.report.views.base import Record, Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOTE = "Cells of one kind share a colour; the line is the path, from the ring to the dot."

_KINDS = ("#f3f4f5", "#39424c", *HUES[1:])
"""Colours of the cells 0 (free), 1 (wall), 2 and so on."""


def applies(trace: Trace) -> bool:
    """Whether there is a `grid` of integers `[H, W]`, perhaps with `positions` (row, column)."""
    return any("grid" in record for record in trace.records.values())


def _map(trace: Trace) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Return the first map and its path."""
    record: Record = next(r for r in trace.records.values() if "grid" in r)
    path = [(int(row), int(column)) for row, column in record.get("positions", [])]
    return np.asarray(record["grid"], int), path


def html(trace: Trace) -> Markup:
    """Return the map as a drawing that shrinks with the screen."""
    grid, path = _map(trace)
    kinds = [(int(kind) % len(_KINDS), x, y) for (y, x), kind in np.ndenumerate(grid)]
    described = f"{trace.title}: a map of {grid.shape[0]} by {grid.shape[1]} cells"
    described += f", a path of {len(path)} positions" if path else ""
    return fill(
        "views/grid_map.html",
        height=grid.shape[0],
        width=grid.shape[1],
        described=described,
        kinds=kinds,
        points=[(x + 0.5, y + 0.5) for y, x in path],
    )


def png(trace: Trace) -> bytes:
    """Return the map as a picture."""
    grid, path = _map(trace)

    def draw(figure: "Figure") -> None:
        from matplotlib.colors import ListedColormap

        axes = figure.subplots()
        colours = ListedColormap(_KINDS)
        axes.imshow(grid % len(_KINDS), cmap=colours, vmin=-0.5, vmax=len(_KINDS) - 0.5)
        if path:
            y, x = zip(*path, strict=True)
            axes.plot(x, y, color=HUES[0], lw=2)
            axes.plot(x[0], y[0], "o", mfc="white", mec=HUES[0], ms=9)
            axes.plot(x[-1], y[-1], "o", color=HUES[0], ms=9)
        axes.set(xticks=[], yticks=[])
        axes.set_title(trace.title, fontsize=10, loc="left")
        bare(axes)

    scale = 6 / max(grid.shape)
    return picture(max(3.0, scale * grid.shape[1]), scale * grid.shape[0] + 0.4, draw)
