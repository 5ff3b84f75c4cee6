"""Reports: run folders -> one offline HTML page, its data as JSON, and pictures.

    from palaestra.runs.report import write_report
    page = write_report(["runs/bandit-s0-1f2e3d4c", "runs/bandit-s1-5b6a7988"])

A report is derived: deleting it loses nothing.
"""

from collections.abc import Sequence
from pathlib import Path

__all__ = ["write_report"]


def write_report(run_dirs: Sequence[Path | str], out: Path | str | None = None) -> Path:
    """Write the report of one or several runs and return the path of its page.

    Args:
      run_dirs: run folders; runs that differ in the seed alone are drawn together.
      out: the page, by default `report.html` in the run folder or, for several runs,
        `report-<experiment>.html` beside the first. The data (`.json`) and the pictures
        (`-curves.png`, `-evaluation.png`, `-trace.png`) get the same stem.

    Raises:
      UserError: no folder given, a folder is no run, or a file in it cannot be read.
    """
    from palaestra.runs.report.build import build

    return build([Path(folder) for folder in run_dirs], Path(out) if out is not None else None)
