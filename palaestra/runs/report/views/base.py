"""What a view is: one way to draw what an agent did, or what it has learned."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from markupsafe import Markup

Record = Mapping[str, Any]
"""Plain data of one episode or artifact; each view says which keys it reads."""


@dataclass(frozen=True)
class Trace:
    """One episode as one or several agents played it, or one artifact.

    Attributes:
      title: what was played.
      records: agent -> its steps, the one that matters first; an artifact has a single record.
    """

    title: str
    records: Mapping[str, Record]


class View(Protocol):
    """Draws traces of one kind; the modules of this package are views."""

    NOTE: str
    """How the picture is read, in one or two sentences."""

    def applies(self, trace: Trace) -> bool:
        """Whether some record of the trace is of this kind."""

    def html(self, trace: Trace) -> Markup:
        """Return the picture as markup that needs no script and fits a narrow screen."""

    def png(self, trace: Trace) -> bytes:
        """Return the picture as a PNG file."""
