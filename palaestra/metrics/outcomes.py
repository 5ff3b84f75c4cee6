"""Games: won, drawn or lost by the sign of the return, and moves that gave the game away."""

from collections.abc import Callable

import numpy as np

from palaestra.experience.episodes import EpisodeMetric, Episodes


def outcome(episodes: Episodes, sign: int) -> np.ndarray:
    """Return 1 where the return has the given sign (+1 won, 0 drawn, -1 lost), `[E]`."""
    result: np.ndarray = (np.sign(episodes.total(episodes.reward)) == sign).astype(np.float64)
    return result


def share(part: str, whole: str | None = None) -> Callable[[Episodes], np.ndarray]:
    """Return the metric of each episode: steps with `part` among those with `whole` (or all)."""

    def metric(episodes: Episodes) -> np.ndarray:
        number = steps(whole)(episodes)
        found = episodes.total(episodes.info[part]) / np.maximum(number, 1)
        return np.where(number > 0, found, np.nan)

    return metric


def steps(flag: str | None) -> Callable[[Episodes], np.ndarray]:
    """Return the function that counts the steps of each episode whose info `flag` is true."""
    if flag is None:
        return lambda episodes: episodes.length
    return lambda episodes: episodes.total(episodes.info[flag])


# `result` is what a game tells at its end; other tasks have no winners.
_GAME = ("result",)
WIN = EpisodeMetric("win", "share", "share of games won", lambda e: outcome(e, 1), _GAME)
DRAW = EpisodeMetric("draw", "share", "share of games drawn", lambda e: outcome(e, 0), _GAME)
LOSS = EpisodeMetric("loss", "share", "share of games lost", lambda e: outcome(e, -1), _GAME)
BLUNDER_RATE = EpisodeMetric(
    "blunder_rate",
    "share",
    "share of the moves that lower the value of the game against a perfect opponent",
    share("blunder"),
    ("blunder",),
    weight=steps(None),
)
BLUNDER_RATE_POSSIBLE = EpisodeMetric(
    "blunder_rate_possible",
    "share",
    "the same among the moves that could have been blunders",
    share("blunder", "blunder_possible"),
    ("blunder", "blunder_possible"),
    weight=steps("blunder_possible"),
)
ILLEGAL_RATE = EpisodeMetric(
    "illegal_rate",
    "share",
    "share of the moves that the rules forbid",
    share("illegal"),
    ("illegal",),
    weight=steps(None),
)
