"""From logged metrics to curves: one chart a metric, one series a group of runs."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from palaestra.runs.report.groups import Group
from palaestra.runs.report.read import Row, Run
from palaestra.seeding import Role, generator

MOST_POINTS = 600
"""Longer lines are drawn as means of neighbouring points, so that the page stays small."""

REPETITIONS = 2_000
"""Bootstrap repetitions for a curve's band."""

_NOT_METRICS = ("agent_steps", "frames", "updates", "attempt", "t")

_TITLES = {
    "rollout/return": ("Return per episode", "learning"),
    "rollout/regret": ("Regret per episode", "learning"),
    "rollout/length": ("Episode length (steps)", "more"),
    "train/policy_loss": ("Policy loss", "training"),
    "train/value_loss": ("Value loss", "training"),
    "train/loss": ("Loss", "training"),
    "train/entropy": ("Policy entropy (nats)", "training"),
    "time/agent_steps_per_s": ("Speed (agent steps per second)", "training"),
}
"""Known metrics in the order in which they are shown: title and section."""


@dataclass(frozen=True)
class Line:
    """Values over agent steps; `y` has no gaps."""

    name: str
    x: list[float]
    y: list[float]


@dataclass(frozen=True)
class Band:
    """Mean over runs with its 95 % bootstrap interval."""

    x: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    runs: int = 0
    """How many runs it is the mean of."""


@dataclass(frozen=True)
class Series:
    """The lines of one group, with the band that stands for them where there are several."""

    label: str
    lines: list[Line]
    band: Band | None = None

    @property
    def seeds(self) -> str:
        """Of how many seeds the band is, as "5 seeds" or "4 of 5 seeds"; empty without a band."""
        if self.band is None:
            return ""
        n, all = self.band.runs, len(self.lines)
        return f"{n} seeds" if n == all else f"{n} of {all} seeds"

    @property
    def last(self) -> float:
        """The last value: of the mean where there is a band."""
        return self.band.mean[-1] if self.band else self.lines[0].y[-1]


@dataclass(frozen=True)
class Level:
    """A horizontal line: what a reference agent reaches."""

    label: str
    value: float


@dataclass(frozen=True)
class Chart:
    """One metric of all groups."""

    metric: str
    title: str
    section: str
    series: list[Series]
    levels: list[Level] = field(default_factory=list)


def charts(groups: Sequence[Group], levels: dict[str, list[Level]] | None = None) -> list[Chart]:
    """Return one chart for each metric that some run logged, the known ones first.

    Args:
      groups: runs by experiment.
      levels: reference lines by metric.
    """
    histories = {run.name: _history(run) for group in groups for run in group.runs}
    names = {metric for history in histories.values() for metric in history}
    known = [metric for metric in _TITLES if metric in names]
    ordered = known + sorted(names - set(known))
    return [
        Chart(metric, *_title(metric), series, (levels or {}).get(metric, []))
        for metric in ordered
        if (series := [s for g in groups if (s := _series(g, metric, histories)).lines])
    ]


def _title(metric: str) -> tuple[str, str]:
    if metric in _TITLES:
        return _TITLES[metric]
    return metric, "evaluation" if metric.startswith("eval/") else "more"


def _history(run: Run) -> dict[str, Line]:
    """Return every metric of a run; returns come from its episodes where they were not logged."""
    history = _columns(run.name, run.metrics)
    for name, line in _columns(run.name, run.episodes).items():
        if name in ("return", "regret", "length"):
            history.setdefault(f"rollout/{name}", line)
    return history | _evaluated(run)


def _evaluated(run: Run) -> dict[str, Line]:
    """Return the scores of suites that the run was evaluated on more than once."""
    rows = [
        {"agent_steps": item.step, f"eval/{item.suite}/score (IQM)": score["value"]}
        for item in run.evaluated
        if item.agent == run.learner and (score := item.summary.get("aggregate", {}).get("iqm"))
    ]
    return {name: line for name, line in _columns(run.name, rows).items() if len(line.x) > 1}


def _columns(name: str, rows: Iterable[Row]) -> dict[str, Line]:
    columns: dict[str, Line] = {}
    for row in rows:
        for metric, value in row.items():
            if metric in _NOT_METRICS or not _is_number(value):
                continue
            line = columns.setdefault(metric, Line(name, [], []))
            line.x.append(row["agent_steps"])
            line.y.append(float(value))
    return {metric: thin(line) for metric, line in columns.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def thin(line: Line, most: int = MOST_POINTS) -> Line:
    """Return a line of at most `most` points, each the mean of equally many neighbours."""
    if len(line.x) <= most:
        return line
    pieces = np.array_split(np.arange(len(line.x)), most)
    x, y = np.asarray(line.x, dtype=float), np.asarray(line.y)
    return Line(
        line.name, [float(x[i].mean()) for i in pieces], [float(y[i].mean()) for i in pieces]
    )


def _series(group: Group, metric: str, histories: dict[str, dict[str, Line]]) -> Series:
    logged = [run for run in group.runs if metric in histories[run.name]]
    lines = [histories[run.name][metric] for run in logged]
    whole = [histories[run.name][metric] for run in logged if run.status == "succeeded"]
    # A run that ended early would end the band for all: its line is drawn, the mean goes without.
    averaged = whole if len(whole) > 1 else lines
    return Series(group.label, lines, band(averaged) if len(averaged) > 1 else None)


def band(lines: Sequence[Line], level: float = 0.95) -> Band | None:
    """Return mean and percentile-bootstrap band over runs, where all of them have values.

    Runs are resampled, never points: the run is the unit of replication. The lines are read at the
    steps of all runs by linear interpolation; None where they share no steps.
    """
    first = max(line.x[0] for line in lines)
    last = min(line.x[-1] for line in lines)
    grid = np.unique([x for line in lines for x in line.x if first <= x <= last])
    if not len(grid):
        return None
    if len(grid) > MOST_POINTS:
        grid = np.linspace(first, last, MOST_POINTS)
    y = np.stack([np.interp(grid, line.x, line.y) for line in lines])  # (runs, points)
    rng = generator(0, Role.STATISTICS)
    share = rng.multinomial(len(y), np.full(len(y), 1 / len(y)), size=REPETITIONS) / len(y)
    base = y[0]  # runs that agree have a band of no width at all, not one of rounding errors
    low, high = base + np.quantile(share @ (y - base), [(1 - level) / 2, (1 + level) / 2], axis=0)
    mean = base + (y - base).mean(axis=0)
    return Band(grid.tolist(), mean.tolist(), low.tolist(), high.tolist(), len(y))
