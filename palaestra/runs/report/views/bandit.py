"""A bandit: the arm of each step, coloured by how good it truly was, and the regret so far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from palaestra.runs.report.format import number
from palaestra.runs.report.picture import GREENS, HUES, INK, bare, picture, plain
from palaestra.runs.report.render import fill
from palaestra.runs.report.views.base import Record, Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOTE = (
    "Each cell is a step and shows the arm that was pulled: the greener, the smaller its true "
    "distance from the best arm; a dot marks the best. Point at a cell, or tap it, for its "
    "reward. Below: the regret summed up so far."
)

MOST_CELLS = 250
"""In longer episodes a cell stands for several steps, so that every width shows the end."""

_MOST_DIGITS = 60


@dataclass(frozen=True)
class Play:
    """One agent's episode, an entry a step: arms, rewards, regrets."""

    agent: str
    actions: np.ndarray
    rewards: np.ndarray
    regrets: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """The regret summed up to each step."""
        return np.cumsum(self.regrets)


def applies(trace: Trace) -> bool:
    """Whether there are integer `actions`, `rewards` and the `regret` of each step."""
    return bool(_bandits(trace))


def html(trace: Trace) -> Markup:
    """Return rows of cells, one an agent, over the lines of their regret."""
    plays = plays_of(trace)
    steps = max(len(play.actions) for play in plays)
    most = max(float(play.total.max()) for play in plays) or 1.0
    ends = "; ".join(f"{p.agent} ends with regret {number(p.total[-1])}" for p in plays)
    return fill(
        "views/bandit.html",
        arms=_bars(arms(trace)),
        steps=steps,
        digits=steps <= _MOST_DIGITS,
        described=f"{trace.title}: {ends}.",
        plays=[
            {
                "agent": play.agent,
                "regret": play.total[-1],
                "width": len(play.actions) / steps,
                "cells": _cells(play, shares),
                "points": [
                    (x, 100 - 96 * y / most) for x, y in enumerate([0.0, *play.total.tolist()])
                ],
            }
            for play, shares in zip(plays, qualities(plays), strict=True)
        ],
    )


def png(trace: Trace) -> bytes:
    """Return the same as a picture."""
    plays = plays_of(trace)
    return picture(9.0, 2.6 + 0.34 * len(plays), lambda figure: _draw(figure, trace.title, plays))


def plays_of(trace: Trace) -> list[Play]:
    """Return the plays of the trace."""
    return [
        Play(agent, *(np.asarray(record[key]) for key in ("actions", "rewards", "regret")))
        for agent, record in _bandits(trace).items()
    ]


def _bandits(trace: Trace) -> dict[str, Record]:
    return {
        agent: record
        for agent, record in trace.records.items()
        if record.get("regret") and all(isinstance(a, int) for a in record["actions"])
    }


def qualities(plays: Sequence[Play]) -> list[np.ndarray]:
    """Return how good each chosen arm truly was, from 0 to 1, for each play.

    1 is the best arm there was, whether or not anybody found it; 0 is as far from it as any agent
    went. An agent that never finds the best arm is nowhere green.
    """
    worst = max(float(play.regrets.max()) for play in plays)
    return [1 - play.regrets / worst if worst > 0 else 1 + 0 * play.regrets for play in plays]


def arms(trace: Trace) -> dict[str, float]:
    """Return the true mean of each arm pulled and of the best arm, best first.

    Empty where the means change from step to step.
    """
    means: dict[str, float] = {}
    for record in _bandits(trace).values():
        expected = record.get("expected_reward", [])
        for arm, mean, regret in zip(record["actions"], expected, record["regret"], strict=False):
            for name, value in ((str(arm), mean), ("best", mean + regret)):
                if abs(means.setdefault(name, value) - value) > 1e-5 * (1 + abs(value)):
                    return {}
    best = means.pop("best", np.nan)
    if means and max(means.values()) < best - 1e-5 * (1 + abs(best)):
        means["the best, never pulled"] = best
    return dict(sorted(means.items(), key=lambda arm: -arm[1]))


def _bars(means: Mapping[str, float]) -> list[dict[str, Any]]:
    low, high = min([0.0, *means.values()]), max([0.0, *means.values()])
    return [
        {
            "arm": arm,
            "mean": mean,
            "left": 100 * (min(mean, 0.0) - low) / ((high - low) or 1.0),
            "width": 100 * abs(mean) / ((high - low) or 1.0),
            "best": rank == 0,
        }
        for rank, (arm, mean) in enumerate(means.items())
    ]


def _cells(play: Play, shares: np.ndarray) -> list[dict[str, Any]]:
    """Return the cells of a row; each stands for one step, or for as many as have to share it."""
    steps = np.array_split(np.arange(len(shares)), min(len(shares), MOST_CELLS))
    return [_cell(play, shares, of_cell) for of_cell in steps]


def _cell(play: Play, shares: np.ndarray, steps: np.ndarray) -> dict[str, Any]:
    first, last = steps[0] + 1, steps[-1] + 1
    pulled = np.unique(play.actions[steps])
    many = first < last
    hover = (
        f"{play.agent}, step{'s' if many else ''} {first}{f' to {last}' if many else ''}: "
        f"arm{'s' if len(pulled) > 1 else ''} {', '.join(map(str, pulled))}, "
        f"reward {number(play.rewards[steps].sum(), 2)}, "
        f"regret so far {number(play.total[last - 1], 2)}"
    )
    share = float(shares[steps].mean())
    best = bool((play.regrets[steps] <= 0).all())
    return {"arm": pulled[0], "share": share, "best": best, "hover": hover}


def _draw(figure: "Figure", title: str, plays: Sequence[Play]) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    greens = LinearSegmentedColormap.from_list("arms", GREENS)
    cells, curves = figure.subplots(2, 1, height_ratios=[0.34 * len(plays), 1.8], sharex=True)
    for y, (play, shares) in enumerate(zip(plays, qualities(plays), strict=True)):
        hue = HUES[y % len(HUES)]
        extent = (0, len(shares), y + 0.42, y - 0.42)
        cells.imshow([shares], cmap=greens, vmin=0, vmax=1, aspect="auto", extent=extent)
        curves.plot([0.0, *play.total], color=hue, lw=1.4, label=play.agent)
        for t, arm in enumerate(play.actions if len(shares) <= _MOST_DIGITS else ()):
            ink = "white" if shares[t] > 0.55 else INK
            cells.text(t + 0.5, y, arm, ha="center", va="center", fontsize=6.5, color=ink)
            if play.regrets[t] <= 0:
                cells.plot(t + 0.5, y + 0.3, "o", ms=1.6, color=ink)
    cells.set_yticks(range(len(plays)), [play.agent for play in plays])
    cells.set_ylim(len(plays) - 0.5, -0.5)
    cells.set_xlim(0, max(len(play.actions) for play in plays))
    cells.set_title(title, fontsize=10, loc="left")
    bare(cells)
    cells.tick_params(labelbottom=False)
    curves.set_ylabel("regret so far", fontsize=8)
    curves.set_xlabel("step", fontsize=8)
    curves.legend(fontsize=7, frameon=False, loc="upper left")
    plain(curves)
