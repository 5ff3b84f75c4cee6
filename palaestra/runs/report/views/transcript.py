"""A transcript: what was said in an episode, turn by turn."""

import textwrap
from typing import TYPE_CHECKING

from markupsafe import Markup

from palaestra.runs.report.picture import HUES, INK, picture
from palaestra.runs.report.render import fill
from palaestra.runs.report.views.base import Record, Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOTE = "Who said what, in order."

_COLUMNS = 100


def applies(trace: Trace) -> bool:
    """Whether there are `messages`, a list of mappings with `role` and `text`."""
    return any(map(_is_transcript, trace.records.values()))


def _is_transcript(record: Record) -> bool:
    messages = record.get("messages")
    return isinstance(messages, list) and all(
        isinstance(m, dict) and isinstance(m.get("text"), str) and "role" in m for m in messages
    )


def _transcripts(trace: Trace) -> dict[str, Record]:
    return {agent: record for agent, record in trace.records.items() if _is_transcript(record)}


def html(trace: Trace) -> Markup:
    """Return the turns of each agent's episode."""
    return fill("views/transcript.html", transcripts=_transcripts(trace))


def png(trace: Trace) -> bytes:
    """Return the first agent's turns as text, wrapped."""
    messages = next(iter(_transcripts(trace).values()))["messages"]
    turns = [(str(m["role"]), _wrapped(m["text"])) for m in messages]
    lines = sum(len(text) + 1 for _, text in turns)
    height = 0.5 + 0.17 * lines

    def draw(figure: "Figure") -> None:
        figure.suptitle(trace.title, fontsize=10, x=0.02, ha="left")
        line = 2
        for role, text in turns:
            for words, ink in ((role, HUES[0]), ("\n".join(text), INK)):
                y = 1 - 0.17 * line / height
                figure.text(0.02, y, words, color=ink, fontsize=8, family="monospace", va="top")
                line += len(words.split("\n"))

    return picture(9.0, height + 0.2, draw)


def _wrapped(text: str) -> list[str]:
    return [part for line in text.split("\n") for part in textwrap.wrap(line, _COLUMNS) or [""]]
