"""Write a report: the page, its data and its pictures, side by side."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from palaestra.errors import UserError
from palaestra.runs.report.data import Report, gather
from palaestra.runs.report.figures import write_figures
from palaestra.runs.report.page import as_script_data, render
from palaestra.runs.report.plain import finite
from palaestra.runs.report.read import Run
from palaestra.runs.report.shown import record


def build(runs: Sequence[Run], out: Path | None = None) -> Path:
    """Write everything and return the page's path; see `write_report`."""
    check_given(runs)
    report = gather(runs)
    page = out or default_page([run.path for run in runs], report)
    if page.suffix not in (".html", ".htm"):
        raise UserError(f"out: {str(page)!r} is not accepted; the page's name ends in .html.")
    page.parent.mkdir(parents=True, exist_ok=True)
    data = json.dumps(finite(report.as_dict()), indent=1, ensure_ascii=False, allow_nan=False)
    page.with_suffix(".json").write_text(data + "\n", encoding="utf-8")
    write_figures(report, page.with_suffix(""))
    # The page comes last and whole: where it is, everything beside it is of the same state.
    text = render(report).removesuffix("</body>\n</html>\n")
    shown = f'<script type="application/json" id="shown">{as_script_data(record(runs))}</script>'
    temporary = page.with_name(f".{page.name}")
    temporary.write_text(f"{text}{shown}\n</body>\n</html>\n", encoding="utf-8")
    temporary.replace(page)
    return page


def check_given(runs: Sequence[Run]) -> None:
    """Check that there is something to report on.

    Raises:
      UserError: no run, or the same one twice.
    """
    if not runs:
        raise UserError("report: no run was given; name one or more.")
    folders = [run.path.resolve() for run in runs]
    for folder in folders:
        if folders.count(folder) > 1:
            raise UserError(f"report: {folder.name!r} is given twice; name each run once.")


def default_page(folders: Sequence[Path], report: Report) -> Path:
    """Return `report.html` in the run's folder, or `report-<experiments>.html` beside the first."""
    if len(folders) == 1:
        return folders[0] / "report.html"
    return folders[0].resolve().parent / page_name([run.experiment for run in report.runs])


def page_name(experiments: Iterable[str]) -> str:
    """Return the file name of a page about several runs."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", "-vs-".join(dict.fromkeys(experiments)))[:100]
    return f"report-{safe}.html"
