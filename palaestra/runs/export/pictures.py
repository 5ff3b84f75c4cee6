"""Pictures of a replay: frames of the environment, or what a report shows of its episodes."""

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from palaestra.runs.export.replay import Replay, Row
from palaestra.runs.report.views import Trace, board, view_of

if TYPE_CHECKING:
    from PIL.Image import Image

GIF, PNG = "replay.gif", "replay.png"

_WIDTH = 320
"""Width of frames in pixels; larger ones are scaled down."""

_MOST_EPISODES = 8
_MOVE, _END = 900, 2400
"""Milliseconds for a position, and for the last one."""


def pictures(replay: Replay) -> dict[str, bytes]:
    """Return file name -> content of the picture that suits the replay, if there is one."""
    if replay.frames:
        frames = [_small(frame) for frame in replay.frames]
        return {GIF: _gif(frames, [1000 / replay.fps] * (len(frames) - 1) + [_END])}
    records = {f"episode {e}": _record(rows) for e, rows in enumerate(replay.rows)}
    trace = Trace(f"{replay.env_id}, {replay.mode}", dict(list(records.items())[:_MOST_EPISODES]))
    view = view_of(trace)
    if view is board:
        games = [list(board.frames(name, record)) for name, record in records.items()]
        times = [t for game in games for t in [_MOVE] * (len(game) - 1) + [_END]]
        return {GIF: _gif([image.quantize(16) for game in games for image in game], times)}
    return {} if view is None else {PNG: view.png(trace)}


def _record(rows: Sequence[Row]) -> Row:
    """Return an episode of a replay as views read it: one list for each column."""
    boards = [_squares(row["observation"]) for row in rows]
    record = {
        "actions": [row["action"] for row in rows],
        "rewards": [row["reward"] for row in rows],
        "boards": [*boards, _squares(rows[-1].get("final_observation"))],
    }
    told = {key: [row[key] for row in rows if key in row] for key in ("regret", "expected_reward")}
    return record | {key: values for key, values in told.items() if len(values) == len(rows)}


def _squares(observation: Any) -> Any:
    return observation.get("observation") if isinstance(observation, dict) else observation


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
