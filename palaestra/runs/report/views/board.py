"""A game on a 3 x 3 board, position by position."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from markupsafe import Markup

from palaestra.runs.report.picture import HUES, INK, SOFT
from palaestra.runs.report.render import fill
from palaestra.runs.report.views.base import Record, Trace

if TYPE_CHECKING:
    from PIL.Image import Image

NOTE = "The agent's marks are coloured; the last move is drawn bold."

_SQUARES = (
    *("top left", "top", "top right"),
    *("left", "centre", "right"),
    *("bottom left", "bottom", "bottom right"),
)


@dataclass(frozen=True)
class Board:
    """A position: nine squares, 0 empty, 1 the agent's, 2 the opponent's, and the last move."""

    squares: list[int]
    move: int | None
    caption: str

    @property
    def text(self) -> str:
        """The position in words."""
        rows = ["".join(".XO"[owner] for owner in self.squares[i : i + 3]) for i in (0, 3, 6)]
        return f"{self.caption}: {' / '.join(rows)}"


def applies(trace: Trace) -> bool:
    """Whether there are `boards` of nine squares, one before each of the `actions` and the last."""
    return any(map(_is_game, trace.records.values()))


def _is_game(record: Record) -> bool:
    boards = record.get("boards")
    return isinstance(boards, list) and all(
        isinstance(board, list) and len(board) == 9 and set(board) <= {0, 1, 2} for board in boards
    )


def html(trace: Trace) -> Markup:
    """Return the first game as a row of boards that wraps."""
    agent, record = _first(trace)
    game = f"{agent}, {outcome(record)}"
    return fill("views/board.html", game=game, boards=positions(record)[1:])


def png(trace: Trace) -> bytes:
    """Return the first game as a row of boards."""
    from PIL import Image

    agent, record = _first(trace)
    boards = list(frames(agent, record))
    row = Image.new("RGB", (sum(board.width for board in boards), boards[0].height), "white")
    for i, board in enumerate(boards):
        row.paste(board, (i * board.width, 0))
    content = BytesIO()
    row.save(content, "PNG")
    return content.getvalue()


def _first(trace: Trace) -> tuple[str, Record]:
    return next(entry for entry in trace.records.items() if _is_game(entry[1]))


def outcome(record: Record) -> str:
    """Return how the game ended for the agent, whose rewards are 1, 0 and -1."""
    return {1: "won by the agent", 0: "drawn", -1: "lost by the agent"}.get(
        round(sum(record["rewards"])), "ended"
    )


def positions(record: Record) -> list[Board]:
    """Return the empty board and the position after each move of either side."""
    found = [Board([0] * 9, None, "start")]
    for t, squares in enumerate(record["boards"]):
        found += _moves(found[-1].squares, squares)
        if t < len(record["actions"]) and not squares[record["actions"][t]]:
            move = record["actions"][t]
            own = [1 if i == move else owner for i, owner in enumerate(squares)]
            found.append(Board(own, move, f"agent: {_SQUARES[move]}"))
    return found


def _moves(before: Sequence[int], after: Sequence[int]) -> list[Board]:
    """Return the opponent's move between two positions, if there was one."""
    new = [i for i, (old, now) in enumerate(zip(before, after, strict=True)) if old != now]
    caption = f"opponent: {_SQUARES[new[0]]}" if len(new) == 1 else "position"
    return [Board(list(after), new[0] if len(new) == 1 else None, caption)] if new else []


def frames(name: str, record: Record) -> "Iterable[Image]":
    """Yield each position as an image of 180 x 204 pixels, the outcome on the last."""
    boards = positions(record)
    for board in boards:
        said = f"{board.caption}\n{outcome(record)}" if board is boards[-1] else board.caption
        yield _frame(board, f"{name}: {said}")


def _frame(board: Board, caption: str) -> "Image":
    from PIL import Image, ImageDraw, ImageFont

    side, left, top, half = 52, 12, 36, 15
    image = Image.new("RGB", (2 * left + 3 * side, top + 3 * side + left), "white")
    draw = ImageDraw.Draw(image)
    draw.text((left, 4), caption, INK, ImageFont.load_default(11))
    for at in (1, 2):
        x, y = left + at * side, top + at * side
        draw.line((x, top, x, top + 3 * side), SOFT, 2)
        draw.line((left, y, left + 3 * side, y), SOFT, 2)
    for i, owner in enumerate(board.squares):
        x, y = left + side * (i % 3) + side // 2, top + side * (i // 3) + side // 2
        box, width = (x - half, y - half, x + half, y + half), 8 if i == board.move else 4
        if owner == 1:
            draw.line(box, HUES[0], width)
            draw.line((x - half, y + half, x + half, y - half), HUES[0], width)
        elif owner == 2:
            draw.ellipse(box, outline="#1d2126", width=width)
    return image
