"""Fill the templates of pages, tables and pictures; whatever is filled in is escaped."""

import json
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from palaestra.runs.report.format import number


def text(template: str, **values: Any) -> str:
    """Return a file of `templates/` filled with values; only `Markup` is left as it is."""
    return _templates().get_template(template).render(values)


def fill(template: str, **values: Any) -> Markup:
    """Return the same as a part for another template."""
    return Markup(text(template, **values))


def script_data(data: Any) -> Markup:
    """Return JSON that cannot end the script element that holds it."""
    content = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return Markup(content.replace("<", "\\u003c"))


@cache
def _templates() -> Environment:
    found = Environment(
        loader=PackageLoader("palaestra.runs.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters["number"] = number
    return found
