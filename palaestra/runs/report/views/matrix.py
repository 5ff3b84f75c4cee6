"""A matrix: numbers by row and column, as a heat map with its figures."""

from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from palaestra.runs.report.format import decimals, number
from palaestra.runs.report.picture import GREENS, INK, bare, picture
from palaestra.runs.report.render import fill
from palaestra.runs.report.views.base import Record, Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOTE = "The darker a cell, the larger its number."

_MOST_NUMBERS = 400


def applies(trace: Trace) -> bool:
    """Whether there is a `matrix` of numbers `[R, C]`, perhaps with `rows` and `columns` labels."""
    return any("matrix" in record for record in trace.records.values())


def _matrix(trace: Trace) -> tuple[np.ndarray, list[str], list[str]]:
    """Return the first matrix with its labels; without labels the rows and columns are counted."""
    record: Record = next(r for r in trace.records.values() if "matrix" in r)
    values = np.asarray(record["matrix"], float)
    labels = zip(("rows", "columns"), values.shape, strict=True)
    rows, columns = ([str(x) for x in record.get(key, range(n))] for key, n in labels)
    return values, rows, columns


def _shares(values: np.ndarray) -> np.ndarray:
    """Return the values scaled to 0 (smallest) to 1 (largest); what is not finite is 0."""
    known = values[np.isfinite(values)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
    return np.nan_to_num((values - low) / ((high - low) or 1.0), posinf=0.0, neginf=0.0)


def html(trace: Trace) -> Markup:
    """Return a table of coloured cells."""
    values, rows, columns = _matrix(trace)
    digits = decimals(values.ravel().tolist())

    def cell(value: float, share: float) -> dict[str, Any]:
        return {"text": number(value, digits), "share": 100 * share, "high": share > 0.55}

    lines = [
        (row, [cell(*pair) for pair in zip(*line, strict=True)])
        for row, *line in zip(rows, values.tolist(), _shares(values).tolist(), strict=True)
    ]
    return fill("views/matrix.html", title=trace.title, columns=columns, lines=lines)


def png(trace: Trace) -> bytes:
    """Return a heat map, with its numbers where they fit."""
    values, rows, columns = _matrix(trace)
    shares, digits = _shares(values), decimals(values.ravel().tolist())

    def draw(figure: "Figure") -> None:
        from matplotlib.colors import LinearSegmentedColormap

        axes = figure.subplots()
        axes.imshow(shares, cmap=LinearSegmentedColormap.from_list("cells", GREENS), aspect="auto")
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xticks(range(len(columns)), columns, rotation=45 if len(columns) > 8 else 0)
        axes.set_title(trace.title, fontsize=10, loc="left")
        bare(axes)
        for (r, c), value in np.ndenumerate(values if values.size <= _MOST_NUMBERS else []):
            ink = "white" if shares[r, c] > 0.55 else INK
            text = number(float(value), digits)
            axes.text(c, r, text, ha="center", va="center", fontsize=7, color=ink)

    return picture(2 + 0.6 * min(len(columns), 20), 1 + 0.35 * min(len(rows), 30), draw)
