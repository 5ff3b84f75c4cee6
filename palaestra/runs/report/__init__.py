"""Reports: runs -> one offline HTML page, its data as JSON, and pictures.

    from palaestra.runs.report import write_report
    from palaestra.runs.store.record import RunRecord
    names = ("bandit-s0-1f2e3d4c", "bandit-s1-5b6a7988")
    page = write_report([RunRecord.open(name).run() for name in names])

A report is derived: deleting it loses nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from palaestra.runs.report.read import Run

__all__ = ["write_report"]


def write_report(runs: "Sequence[Run]", out: Path | str | None = None) -> Path:
    """Write the report of one or several runs and return the path of its page.

    Args:
      runs: plain data of runs; those that differ in the seed alone are drawn together.
      out: the page, by default `report.html` in the run folder or, for several runs,
        `report-<experiment>.html` beside the first. The data (`.json`) and the pictures
        (`-curves.png`, `-evaluation.png`, `-trace.png`) get the same stem.

    Raises:
      UserError: no run given, one given twice, or a page whose name is not accepted.
    """
    from palaestra.runs.report.build import build

    return build(runs, Path(out) if out is not None else None)
