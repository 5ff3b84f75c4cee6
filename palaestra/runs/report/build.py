"""Write a report: the page, its data and its pictures, side by side."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from palaestra.errors import UserError
from palaestra.runs.report.data import Report, gather
from palaestra.runs.report.figures import write_figures
from palaestra.runs.report.page import render
from palaestra.runs.report.plain import finite
from palaestra.runs.report.read import Record, read_runs
from palaestra.runs.report.stamp import stamp


def build(records: Sequence[Record], out: Path | None = None) -> Path:
    """Read the runs, write everything and return the page's path; see `write_report`."""
    last_line = stamp(records)  # first: what changes while the runs are read is then shown as old
    report = gather(read_runs(records))
    page = out or default_page([record.path for record in records], report)
    if page.suffix not in (".html", ".htm"):
        raise UserError(f"out: {str(page)!r} is not accepted; the page's name ends in .html.")
    page.parent.mkdir(parents=True, exist_ok=True)
    data = json.dumps(finite(report.as_dict()), indent=1, ensure_ascii=False, allow_nan=False)
    page.with_suffix(".json").write_text(data + "\n", encoding="utf-8")
    write_figures(report, page.with_suffix(""))
    # The page comes last and whole: where it is, everything beside it is of the same state.
    temporary = page.with_name(f".{page.name}")
    temporary.write_text(render(report) + last_line, encoding="utf-8")
    temporary.replace(page)
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
