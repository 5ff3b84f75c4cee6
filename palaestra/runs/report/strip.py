"""The strip: what agents did, step by step, in the first episodes of an evaluation."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from palaestra.runs.report.format import number

CELL = 15
"""Width of a step in pixels where the episode is short enough."""

_WIDEST = 750
_LEFT, _RIGHT = 150, 150
_ROW, _CELL_HEIGHT = 38, 20
_REGRET = 110
_BANDIT_NOTE = (
    "Each cell is a step and shows the arm that was pulled: the greener, the better the arm truly "
    "is; a dot marks the best. Point at a cell, or tap it, for its reward. Below: the regret "
    "summed up so far."
)
_GAME_NOTE = "The agent's marks are coloured; the last move is drawn bold."
_DASHES = ("", "5 3", "1.5 3", "7 3 1.5 3")


@dataclass(frozen=True)
class Play:
    """One agent's episode on a bandit; the lists have one entry a step."""

    agent: str
    actions: list[int]
    rewards: list[float]
    regrets: list[float]

    @property
    def cumulative(self) -> list[float]:
        """The regret summed up to each step."""
        total, sums = 0.0, []
        for regret in self.regrets:
            total += regret
            sums.append(total)
        return sums


@dataclass(frozen=True)
class BanditEpisode:
    """One bandit and how the agents played it.

    `means` holds the true mean of each arm that somebody pulled; it is empty where means vary from
    step to step (contexts).
    """

    title: str
    means: dict[int, float]
    plays: list[Play]

    @property
    def length(self) -> int:
        """Steps of the longest play."""
        return max(len(play.actions) for play in self.plays)

    @property
    def best_arms(self) -> set[int]:
        """The arms that somebody pulled without regret."""
        return {
            arm
            for play in self.plays
            for arm, regret in zip(play.actions, play.regrets, strict=True)
            if regret <= 0
        }

    def quality(self, play: Play, t: int) -> float:
        """Return how good the arm chosen at step t truly was, from 0 (worst) to 1 (best)."""
        if self.means:
            low, high = min(self.means.values()), max(self.means.values())
            return 1.0 if high == low else (self.means[play.actions[t]] - low) / (high - low)
        worst = max((max(p.regrets, default=0.0) for p in self.plays), default=0.0)
        return 1.0 if worst <= 0 else 1.0 - play.regrets[t] / worst


@dataclass(frozen=True)
class Board:
    """A position: nine squares, 0 empty, 1 the agent's, 2 the opponent's, and the last move."""

    squares: list[int]
    move: int | None
    caption: str


@dataclass(frozen=True)
class Game:
    """One game on a 3 x 3 board."""

    title: str
    boards: list[Board]


Strip = BanditEpisode | Game


def strip_html(strips: Sequence[Strip]) -> str:
    """Return the section with all strips; empty without any."""
    if not strips:
        return ""
    bandits = [strip for strip in strips if isinstance(strip, BanditEpisode)]
    games = [strip for strip in strips if isinstance(strip, Game)]
    parts = ["<section><h2>Step by step</h2>"]
    if bandits:
        parts += [f'<p class="note">{_BANDIT_NOTE}</p>', *map(_bandit_html, bandits)]
    if games:
        parts += [f'<p class="note">{_GAME_NOTE}</p>', *map(_game_html, games)]
    return "".join([*parts, "</section>"])


def _bandit_html(episode: BanditEpisode) -> str:
    readout = '<p class="readout" aria-live="polite"></p>'
    return (
        f'<figure class="strip"><figcaption>{escape(episode.title)}</figcaption>'
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(episode.title)}">'
        f"{_bandit_svg(episode)}</div>{readout}</figure>"
    )


def _bandit_svg(episode: BanditEpisode) -> str:
    width = max(3.0, min(CELL, _WIDEST / episode.length))
    rows = len(episode.plays) * _ROW
    height = max(rows + _REGRET + 22, 20 + 15 * len(episode.means))
    total = _LEFT + width * episode.length + _RIGHT
    parts = [*_means(episode)]
    for i, play in enumerate(episode.plays):
        parts += _cells(episode, play, i * _ROW, width)
    parts += _regret_lines(episode, rows + 10, width)
    return (
        f'<svg width="{total:.0f}" height="{height}" viewBox="0 0 {total:.0f} {height}" '
        f'role="img" aria-label="{escape(_described(episode))}">{"".join(parts)}</svg>'
    )


def _described(episode: BanditEpisode) -> str:
    ends = [f"{p.agent} ends with regret {number(p.cumulative[-1])}" for p in episode.plays]
    return f"{episode.title}: {'; '.join(ends)}."


def _means(episode: BanditEpisode) -> Iterable[str]:
    """The arms with their true means, best first, as small bars."""
    if not episode.means:
        return
    low, high = min(0.0, *episode.means.values()), max(0.0, *episode.means.values())
    scale = 60 / ((high - low) or 1.0)
    yield '<text class="soft" x="0" y="11">arm: true mean</text>'
    order = sorted(episode.means, key=lambda arm: -episode.means[arm])
    for rank, arm in enumerate(order):
        mean, y = episode.means[arm], 18 + 15 * rank
        left = 26 + (min(mean, 0.0) - low) * scale
        kind = "bar best" if arm in episode.best_arms else "bar"
        yield (
            f'<text x="14" y="{y + 10}" text-anchor="end">{arm}</text>'
            f'<rect class="{kind}" x="{left:.1f}" y="{y + 2}" '
            f'width="{max(1.0, abs(mean) * scale):.1f}" height="9"/>'
            f'<text x="128" y="{y + 10}" text-anchor="end">{number(mean, 2)}</text>'
        )


def _cells(episode: BanditEpisode, play: Play, y: int, width: float) -> Iterable[str]:
    yield f'<text class="soft" x="{_LEFT}" y="{y + 11}">{escape(play.agent)}</text>'
    total = play.cumulative
    for t, arm in enumerate(play.actions):
        x = _LEFT + t * width
        share = episode.quality(play, t)
        hover = (
            f"{play.agent}, step {t + 1}: arm {arm}, reward {number(play.rewards[t], 2)}, "
            f"regret so far {number(total[t], 2)}"
        )
        fill = f"color-mix(in oklab, var(--cell-high) {100 * share:.0f}%, var(--cell-low))"
        yield (
            f'<g class="hit"><title>{escape(hover)}</title>'
            f'<rect x="{x:.1f}" y="{y + 15}" width="{width - (width > 5):.1f}" '
            f'height="{_CELL_HEIGHT}" style="fill:{fill}"/>'
        )
        middle = x + (width - 1) / 2
        ink = "high" if share > 0.55 else "low"
        if width >= 12:
            yield (
                f'<text x="{middle:.1f}" y="{y + 27}" text-anchor="middle" '
                f'style="fill:var(--cell-ink-{ink})">{arm}</text>'
            )
        if play.regrets[t] <= 0:
            yield (
                f'<circle cx="{middle:.1f}" cy="{y + 32}" r="1.3" '
                f'style="fill:var(--cell-ink-{ink})"/>'
            )
        yield "</g>"


def _regret_lines(episode: BanditEpisode, y: int, width: float) -> Iterable[str]:
    """Cumulative regret of each agent under its steps, each labelled at its end."""
    most = max((play.cumulative[-1] for play in episode.plays), default=0.0) or 1.0
    bottom, right = y + _REGRET, _LEFT + width * episode.length
    yield f'<line class="axis" x1="{_LEFT}" x2="{right:.0f}" y1="{bottom}" y2="{bottom}"/>'
    yield f'<text class="soft" x="{_LEFT}" y="{y + 10}">regret so far</text>'
    ends = [bottom - play.cumulative[-1] / most * (_REGRET - 14) for play in episode.plays]
    labels = spread(ends, 13, bottom)
    for i, (play, label_y) in enumerate(zip(episode.plays, labels, strict=True)):
        points = " ".join(
            f"{_LEFT + (t + 1) * width:.1f},{bottom - total / most * (_REGRET - 14):.1f}"
            for t, total in enumerate(play.cumulative)
        )
        stroke = "var(--accent)" if i == 0 else "var(--soft)"
        dash = f' stroke-dasharray="{_DASHES[i % len(_DASHES)]}"' if i else ""
        yield (
            f'<polyline points="{_LEFT},{bottom} {points}" fill="none" stroke-width="1.6" '
            f'style="stroke:{stroke}"{dash}/>'
            f'<text x="{right + 6:.0f}" y="{label_y + 4:.1f}">{escape(play.agent)} '
            f"{number(play.cumulative[-1])}</text>"
        )


def spread(places: Sequence[float], gap: float, lowest: float) -> list[float]:
    """Move labels up until any two are `gap` apart; y grows downwards, to `lowest` at most."""
    order = sorted(range(len(places)), key=lambda i: -places[i])
    moved = list(places)
    limit = lowest
    for i in order:
        moved[i] = min(places[i], limit)
        limit = moved[i] - gap
    return moved


def _game_html(game: Game) -> str:
    boards = "".join(
        f"<li>{_board_svg(board)}<div>{escape(board.caption)}</div></li>" for board in game.boards
    )
    return (
        f'<figure class="strip"><figcaption>{escape(game.title)}</figcaption>'
        f'<ol class="boards">{boards}</ol></figure>'
    )


def _board_svg(board: Board) -> str:
    """Return a position as a 66-pixel diagram; the agent plays the coloured crosses."""
    parts = [f'<path class="grid-line" d="M{at} 3V63M3 {at}H63"/>' for at in (23, 43)]
    for square, owner in enumerate(board.squares):
        x, y = 13 + 20 * (square % 3), 13 + 20 * (square // 3)
        kind = ("", "piece own", "piece")[owner] + (" new" if square == board.move else "")
        if owner == 1:
            parts.append(
                f'<path class="{kind}" d="M{x - 5} {y - 5}l10 10M{x + 5} {y - 5}l-10 10"/>'
            )
        elif owner == 2:
            parts.append(f'<circle class="{kind}" cx="{x}" cy="{y}" r="5.5"/>')
    rows = ["".join(".XO"[owner] for owner in board.squares[i : i + 3]) for i in (0, 3, 6)]
    return (
        f'<svg width="66" height="66" viewBox="0 0 66 66" role="img" '
        f'aria-label="{escape(board.caption)}: {" / ".join(rows)}">{"".join(parts)}</svg>'
    )
