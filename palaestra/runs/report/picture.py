"""A picture as PNG, drawn without a display and without global state."""

from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HUES = ("#2a62c9", "#c4601a", "#1d8562", "#a83a80", "#6d55b8", "#8c6a1c", "#337f96", "#b8423f")
GREENS = ("#dfe4ea", "#1f6f5c")
"""Worst and best of what is coloured by its quality."""
INK, SOFT, GRID = "#39424c", "#9aa4af", "#e4e6e9"


def picture(width: float, height: float, draw: "Callable[[Figure], None]", dpi: int = 130) -> bytes:
    """Return what `draw` draws on a white figure of so many inches; the same call, the same bytes.

    Names come from runs: a dollar sign in them does not begin a formula.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    content = BytesIO()
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        draw(figure)
        figure.savefig(content, format="png", dpi=dpi, metadata={"Software": None})
    return content.getvalue()


def plain(axes: "Axes", grid: str = "both") -> None:
    """Leave of the frame what is read: left and bottom axis, small ticks, a light grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color=GRID, lw=0.6)  # type: ignore[arg-type]


def bare(axes: "Axes") -> None:
    """Leave nothing of the frame."""
    axes.spines[:].set_visible(False)
    axes.tick_params(labelsize=8, length=0)
