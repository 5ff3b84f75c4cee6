"""Write a report: the page, its data and its pictures, side by side."""

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from palaestra.errors import RunError, UserError
from palaestra.runs.report.data import Report, gather
from palaestra.runs.report.figures import figures
from palaestra.runs.report.page import render
from palaestra.runs.report.plain import finite
from palaestra.runs.report.read import Run


def build(runs: Sequence[Run], out: Path | None = None) -> Path:
    """Write everything and return the page's path; see `write_report`."""
    check_given(runs)
    report = gather(runs)
    page = out or default_page([run.path for run in runs], report)
    if page.suffix not in (".html", ".htm"):
        raise UserError(f"out: {str(page)!r} is not accepted; the page's name ends in .html.")
    data = json.dumps(finite(report.as_dict()), indent=1, ensure_ascii=False, allow_nan=False)
    files: dict[Path, bytes | None] = {
        page.with_name(f"{page.stem}-{name}.png"): content
        for name, content in figures(report).items()
    }
    files[page.with_suffix(".json")] = f"{data}\n".encode()
    files[page] = render(report).encode()
    place(files)
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


def place(files: dict[Path, bytes | None]) -> None:
    """Write all files aside, then move each into its place, in the order given; None removes one.

    Killed at any moment, the last file is the old one, whole, or the new one with all the others.

    Raises:
      RunError: the disk is full or cannot be written.
    """
    aside = {path: path.with_name(f".tmp-{os.getpid()}-{path.name}") for path in files}
    try:
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is not None:
                aside[path].write_bytes(content)
        for path, content in files.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                aside[path].replace(path)
    except OSError as error:
        raise RunError(f"the report could not be written: {error}") from error
    finally:
        for path in filter(Path.exists, aside.values()):
            path.unlink()


def default_page(folders: Sequence[Path], report: Report) -> Path:
    """Return `report.html` in the run's folder, or `report-<experiments>.html` beside the first."""
    if len(folders) == 1:
        return folders[0] / "report.html"
    return folders[0].resolve().parent / page_name([run.experiment for run in report.runs])


def page_name(experiments: Iterable[str]) -> str:
    """Return the file name of a page about several runs."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", "-vs-".join(dict.fromkeys(experiments)))[:100]
    return f"report-{safe}.html"
