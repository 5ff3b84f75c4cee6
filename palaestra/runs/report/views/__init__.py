"""Pictures of episodes and artifacts, drawn once for reports and exports."""

from palaestra.runs.report.views import bandit, board, grid_map, matrix, transcript
from palaestra.runs.report.views.base import Trace, View

__all__ = ["VIEWS", "Trace", "View", "view_of"]

VIEWS: tuple[View, ...] = (bandit, board, transcript, grid_map, matrix)
"""Every view; the first that applies draws a trace."""


def view_of(trace: Trace) -> View | None:
    """Return the view that draws a trace, None where no view knows its kind."""
    return next((view for view in VIEWS if view.applies(trace)), None)
