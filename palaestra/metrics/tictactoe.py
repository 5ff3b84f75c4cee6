"""Games by side: what an agent achieves where it opens, and where its opponent does.

The side is the info `agent_first`, `[E, T]`. Opening Tic-tac-toe is worth so much that a mean over
both sides hides more than it tells.
"""

from dataclasses import dataclass

import numpy as np

from palaestra.experience.episodes import EpisodeMetric, Episodes
from palaestra.metrics.outcomes import (
    BLUNDER_RATE,
    BLUNDER_RATE_POSSIBLE,
    DRAW,
    ILLEGAL_RATE,
    LOSS,
    WIN,
)
from palaestra.metrics.returns import LENGTH, RETURN

GAME_METRICS = (
    RETURN,
    WIN,
    DRAW,
    LOSS,
    LENGTH,
    BLUNDER_RATE,
    BLUNDER_RATE_POSSIBLE,
    ILLEGAL_RATE,
)
"""What a table of games shows."""


def sides(episodes: Episodes) -> dict[str, np.ndarray]:
    """Return the games of each side, bool `[E]`: "all", "first" (the agent opened), "second"."""
    first = episodes.info["agent_first"][:, 0].astype(bool)
    return {"all": np.ones_like(first), "first": first, "second": ~first}


def by_side(episodes: Episodes) -> dict[str, dict[str, float]]:
    """Return side -> name of a game metric -> its mean; nan where a side was never played.

    Shares of decisions are pooled: all blunders of a side over all its decisions.
    """
    table: dict[str, dict[str, float]] = {}
    for side, games in sides(episodes).items():
        table[side] = {"games": float(games.sum())}
        for metric in GAME_METRICS:
            values, weights = metric(episodes)[games], metric.weights(episodes)[games]
            total = weights.sum()
            pooled = np.where(weights > 0, weights * values, 0.0).sum()
            table[side][metric.name] = float(pooled / total) if total else float("nan")
    return table


@dataclass(frozen=True)
class SideReturn(EpisodeMetric):
    """The return of the episodes of one side; it applies where that side was played."""

    side: str = "first"

    def applies(self, episodes: Episodes) -> bool:
        """Return whether some episode was played on this side."""
        return super().applies(episodes) and bool(sides(episodes)[self.side].any())


def _side_return(side: str, who: str) -> SideReturn:
    return SideReturn(
        f"return_{side}",
        "reward",
        f"return of the episodes that {who} opened",
        lambda e: np.where(sides(e)[side], RETURN(e), np.nan),
        ("agent_first",),
        weight=lambda e: sides(e)[side],
        side=side,
    )


RETURN_FIRST = _side_return("first", "the agent")
RETURN_SECOND = _side_return("second", "the opponent")
