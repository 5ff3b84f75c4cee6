"""Write a report: the page, its data and its pictures, side by side."""

import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from palaestra.errors import UserError
from palaestra.runs.report.data import Report, gather
from palaestra.runs.report.figures import write_figures
from palaestra.runs.report.page import render
from palaestra.runs.report.read import read_runs


def build(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Read the runs, write everything and return the page's path; see `write_report`."""
    report = gather(read_runs(folders))
    page = out or default_page(folders, report)
    if page.suffix not in (".html", ".htm"):
        raise UserError(f"out: {str(page)!r} is not accepted; the page's name ends in .html.")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render(report), encoding="utf-8")
    data = json.dumps(finite(report.as_dict()), indent=1, ensure_ascii=False, allow_nan=False)
    page.with_suffix(".json").write_text(data + "\n", encoding="utf-8")
    write_figures(report, page.with_suffix(""))
    return page


def default_page(folders: Sequence[Path], report: Report) -> Path:
    """Return `report.html` in the run's folder, or `report-<experiments>.html` beside the first."""
    if len(folders) == 1:
        return folders[0] / "report.html"
    return folders[0].resolve().parent / page_name([run.experiment for run in report.runs])


def page_name(experiments: Iterable[str]) -> str:
    """Return the file name of a page about several runs."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", "-vs-".join(dict.fromkeys(experiments)))[:100]
    return f"report-{safe}.html"


def finite(data: Any) -> Any:
    """Return data with null for the numbers that JSON cannot hold."""
    if isinstance(data, dict):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
