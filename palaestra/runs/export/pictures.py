"""Pictures of a replay: frames of the environment, a strip of a bandit, the boards of a game."""

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from palaestra.runs.export.replay import Replay, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image

GIF, PNG = "replay.gif", "replay.png"

_WIDTH = 320
"""Width of frames in pixels; larger ones are scaled down."""

_OWN, _OTHER, _GRID, _INK = "#2a62c9", "#1d2126", "#9aa4af", "#39424c"
_HUES = ("#2a62c9", "#c4601a", "#1d8562", "#a83a80", "#6d55b8", "#8c6a1c", "#337f96", "#b8423f")
_GREENS = ("#dfe4ea", "#1f6f5c")
_MOST_ROWS = 8
_MOVE, _END = 900, 2400
"""Milliseconds for a position, and for the last one."""

_SQUARES = 9


def pictures(replay: Replay) -> dict[str, bytes]:
    """Return file name -> content of the picture that suits the replay, if there is one."""
    if replay.frames:
        frames = [_small(frame) for frame in replay.frames]
        return {GIF: _gif(frames, [1000 / replay.fps] * (len(frames) - 1) + [_END])}
    if _is_bandit(replay.rows):
        return {PNG: _strip(replay)}
    if _is_board_game(replay.rows):
        games = [_game(number, episode) for number, episode in enumerate(replay.rows)]
        times = [t for game in games for t in [_MOVE] * (len(game) - 1) + [_END]]
        return {GIF: _gif([image for game in games for image in game], times)}
    return {}


def _gif(images: Sequence["Image"], milliseconds: Sequence[float]) -> bytes:
    """Return an endless animation that shows each image for so long."""
    content = BytesIO()
    images[0].save(
        content,
        "GIF",
        save_all=True,
        append_images=images[1:],
        # GIF counts in hundredths of a second, and viewers slow down what is faster than two.
        duration=[max(20, round(time / 10) * 10) for time in milliseconds],
        loop=0,
        optimize=False,
    )
    return content.getvalue()


def _small(frame: np.ndarray) -> "Image":
    from PIL import Image

    image = Image.fromarray(frame)
    if image.width > _WIDTH:
        image = image.resize((_WIDTH, round(image.height * _WIDTH / image.width)))
    return image.quantize(64)


def _is_bandit(episodes: Sequence[Sequence[Row]]) -> bool:
    return all(isinstance(row["action"], int) and "regret" in row for e in episodes for row in e)


def _strip(replay: Replay) -> bytes:
    """Rows of cells, one an episode, the greener the better the arm; the regret so far below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    episodes = replay.rows[:_MOST_ROWS]
    height = 0.34 * len(episodes)
    figure = Figure(figsize=(9.0, 2.9 + height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    cells, curves = figure.subplots(2, 1, height_ratios=[height, 1.9], sharex=True)
    for y, episode in enumerate(episodes):
        _cells(cells, episode, y)
        total = np.cumsum([0.0, *(row["regret"] for row in episode)])
        curves.plot(total, color=_HUES[y], lw=1.4, label=f"episode {y}")
    cells.set_yticks(range(len(episodes)), [f"episode {y}" for y in range(len(episodes))])
    cells.set_ylim(len(episodes) - 0.5, -0.5)
    cells.set_xlim(0, max(len(episode) for episode in episodes))
    title = f"{replay.env_id}, {replay.mode}: arm of each step, greener is better, dot: the best"
    cells.set_title(title, fontsize=10, loc="left")
    cells.spines[:].set_visible(False)
    cells.tick_params(labelsize=8, length=0, labelbottom=False)
    curves.set_ylabel("regret so far", fontsize=8)
    curves.set_xlabel("step", fontsize=8)
    curves.legend(fontsize=7, frameon=False, loc="upper left")
    curves.grid(color="#e4e6e9", lw=0.6)
    curves.spines[["top", "right"]].set_visible(False)
    curves.tick_params(labelsize=8)
    content = BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    return content.getvalue()


def _cells(axes: "Axes", episode: Sequence[Row], y: int) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    greens = LinearSegmentedColormap.from_list("arms", _GREENS)
    worst = max(row["regret"] for row in episode) or 1.0
    shares = [1 - row["regret"] / worst for row in episode]
    extent = (0, len(episode), y + 0.42, y - 0.42)
    axes.imshow([shares], cmap=greens, vmin=0, vmax=1, aspect="auto", extent=extent)
    if len(episode) > 60:
        return
    for t, (row, share) in enumerate(zip(episode, shares, strict=True)):
        ink = "white" if share > 0.55 else _INK
        axes.text(
            t + 0.5, y - 0.06, str(row["action"]), ha="center", va="center", fontsize=6.5, color=ink
        )
        if row["regret"] <= 0:
            axes.plot(t + 0.5, y + 0.27, "o", ms=1.6, color=ink)


def _is_board_game(episodes: Sequence[Sequence[Row]]) -> bool:
    """Whether observations are nine squares: 0 empty, 1 the agent's, 2 the opponent's."""
    return all(
        isinstance(row["action"], int)
        and len(squares := _squares(row["observation"])) == _SQUARES
        and set(squares) <= {0, 1, 2}
        for episode in episodes
        for row in episode
    )


def _squares(observation: Any) -> list[Any]:
    if isinstance(observation, dict):
        observation = observation.get("observation")
    return observation if isinstance(observation, list) else []


def _game(number: int, episode: Sequence[Row]) -> list["Image"]:
    """Return the positions of one game, after each move."""
    total = sum(row["reward"] for row in episode)
    outcome = "won" if total > 0 else "lost" if total < 0 else "drawn"
    places = _positions(episode)
    images = []
    for i, (who, squares) in enumerate(places):
        said = f"{who}, game {outcome}" if i == len(places) - 1 else who
        before = places[max(0, i - 1)][1]
        images.append(_board(squares, before, f"game {number}: {said}"))
    return images


def _positions(episode: Sequence[Row]) -> list[tuple[str, list[int]]]:
    """Return who moved and what the board then was, from the boards before the agent's moves."""
    found = [("start", [0] * _SQUARES)]
    for row in episode:
        squares = _squares(row["observation"])
        if squares != found[-1][1]:
            found.append(("opponent", squares))
        if not squares[row["action"]]:
            own = [1 if i == row["action"] else owner for i, owner in enumerate(squares)]
            found.append(("agent", own))
    final = _squares(episode[-1]["final_observation"])
    return found if final == found[-1][1] else [*found, ("opponent", final)]


def _board(squares: Sequence[int], before: Sequence[int], caption: str) -> "Image":
    """Draw a position, 180 x 204 pixels: the agent plays the coloured crosses, new marks bold."""
    from PIL import Image, ImageDraw

    side, left, top, half = 52, 12, 36, 15
    image = Image.new("RGB", (2 * left + 3 * side, top + 3 * side + left), "white")
    draw = ImageDraw.Draw(image)
    draw.text((left, 12), caption, fill=_INK)
    for at in (1, 2):
        x, y = left + at * side, top + at * side
        draw.line((x, top, x, top + 3 * side), _GRID, 2)
        draw.line((left, y, left + 3 * side, y), _GRID, 2)
    for i, owner in enumerate(squares):
        x, y = left + side * (i % 3) + side // 2, top + side * (i // 3) + side // 2
        width = 8 if owner != before[i] else 4
        if owner == 1:
            draw.line((x - half, y - half, x + half, y + half), _OWN, width)
            draw.line((x - half, y + half, x + half, y - half), _OWN, width)
        elif owner == 2:
            draw.ellipse((x - half, y - half, x + half, y + half), outline=_OTHER, width=width)
    return image.quantize(16)
