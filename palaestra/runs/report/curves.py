"""From logged metrics to curves: a chart for each metric and environment, a series a group."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from palaestra.runs.report.format import listed
from palaestra.runs.report.groups import Group
from palaestra.runs.report.read import Evaluated, Row, Run
from palaestra.runs.report.results import Result, is_trained, results
from palaestra.seeding import Role, generator

MOST_POINTS = 600
"""Longer lines are drawn as means of neighbouring points, so that the page stays small."""

REPETITIONS = 2_000
"""Bootstrap repetitions for a curve's band."""

_NOT_METRICS = ("agent_steps", "decisions", "frames", "updates", "attempt", "t")

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
    """Values over agent steps, without gaps; `low` and `high` bound them where that is known."""

    name: str
    x: list[float]
    y: list[float]
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Band:
    """A mean with its 95 % bootstrap interval; `over` says over what, as "5 seeds"."""

    x: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    over: str = ""


@dataclass(frozen=True)
class Series:
    """The lines of one group, with the band that stands for them where there is one."""

    label: str
    lines: list[Line]
    band: Band | None = None

    @property
    def last(self) -> float:
        """The last value: of the mean where there is a band."""
        return self.band.mean[-1] if self.band else self.lines[0].y[-1]


@dataclass(frozen=True)
class Level:
    """A horizontal line: what a baseline reaches."""

    label: str
    value: float


@dataclass(frozen=True)
class Chart:
    """One metric of all groups on one environment."""

    metric: str
    title: str
    section: str
    series: list[Series]
    levels: list[Level] = field(default_factory=list)


def charts(groups: Sequence[Group]) -> list[Chart]:
    """Return one chart for each environment and metric that some run logged, the known ones first.

    Returns on different environments are different quantities: they share no axis.
    """
    histories = {run.name: _history(run) for group in groups for run in group.runs}
    logged = {metric for history in histories.values() for metric in history}
    known = [metric for metric in _TITLES if metric in logged]
    places: dict[str, list[Group]] = {}
    for group in groups:
        places.setdefault(_environment(group), []).append(group)
    baselines = {place: levels(there) for place, there in places.items()}
    names = dict(zip(places, _names(list(places.values())), strict=True))
    return [
        Chart(metric, names[place] + title, section, series, baselines[place].get(metric, []))
        for metric in known + sorted(logged - set(known))
        for title, section in [_title(metric)]
        for place, there in places.items()
        if (series := [s for g in there if (s := _series(g, metric, histories)).lines])
    ]


def _environment(group: Group) -> str:
    """Return what tells the environment of a group from others."""
    run = group.runs[0]
    env = run.config.get("env")
    env = env if isinstance(env, dict) else {}
    shared = [run.env_id, env.get("options") or {}, env.get("wrappers") or []]
    return json.dumps(shared, sort_keys=True, default=str)


def _names(places: Sequence[Sequence[Group]]) -> list[str]:
    """Return what titles begin with: the id of each environment, or its agents for a variant."""
    if len(places) == 1:
        return [""]
    ids = [there[0].runs[0].env_id for there in places]
    return [
        f"{id} ({listed([group.label for group in there])}): " if ids.count(id) > 1 else f"{id}: "
        for id, there in zip(ids, places, strict=True)
    ]


def levels(groups: Sequence[Group]) -> dict[str, list[Level]]:
    """Return what the baselines reach, by metric: in training where it plays a task, in suites."""
    found: dict[str, list[Level]] = {}
    runs = [run for group in groups for run in group.runs]
    for result in results(groups):
        if result.trained:
            continue
        if iqm := result.overall.get("score_iqm"):
            level = Level(result.label, iqm.value)
            found.setdefault(f"eval/{result.suite}/score (IQM)", []).append(level)
        if len(result.tasks) == 1 and (mean := next(iter(result.tasks.values())).get("return")):
            level = Level(result.label, mean.value)
            found.setdefault(f"eval/{result.suite}/return", []).append(level)
        same = {task for run in runs if (task := _training_task(run, result))}
        figures = result.tasks[same.pop()] if len(same) == 1 else {}
        for key in figures.keys() & {"return", "regret", "length"}:
            level = Level(result.label, figures[key].value)
            found.setdefault(f"rollout/{key}", []).append(level)
    return found


def _training_task(run: Run, result: Result) -> str | None:
    """Return the one task that plays the run's training environment, None if it is not clear."""
    options = (run.config.get("env") or {}).get("options") or {}
    same = [
        task
        for task, (env_id, kwargs) in result.envs.items()
        if env_id == run.env_id
        and all(kwargs[key] == options[key] for key in kwargs.keys() & options.keys())
    ]
    return same[0] if len(same) == 1 else None


def _title(metric: str) -> tuple[str, str]:
    if metric in _TITLES:
        return _TITLES[metric]
    if metric.startswith("eval/"):
        suite, _, figure = metric.removeprefix("eval/").rpartition("/")
        return f"{figure[0].upper()}{figure[1:]} on {suite}", "evaluation"
    return metric, "more"


def _history(run: Run) -> dict[str, Line]:
    """Return every metric of a run; returns come from its episodes where they were not logged."""
    history = _columns(run.name, run.metrics)
    for name, line in _columns(run.name, run.episodes).items():
        if name in ("return", "regret", "length"):
            history.setdefault(f"rollout/{name}", line)
    return history | _evaluated(run)


def _evaluated(run: Run) -> dict[str, Line]:
    """Return what the agent reached in suites that it played after different steps."""
    lines: dict[str, Line] = {}
    for item in sorted(run.evaluated, key=lambda item: item.step):
        if not is_trained(item, run):
            continue
        for name, (value, low, high) in _reached(item).items():
            metric = f"eval/{item.suite}/{name}"
            line = lines.setdefault(metric, Line(run.name, [], [], [], []))
            line.x.append(item.step)
            line.y.append(value)
            line.low.append(value if low is None else low)
            line.high.append(value if high is None else high)
    return {metric: line for metric, line in lines.items() if len(line.x) > 1}


def _reached(item: Evaluated) -> dict[str, list[Any]]:
    """Return value, low and high of the score over all tasks and, of a single task, the return."""
    tasks = item.summary.get("tasks", [])
    iqm = item.summary.get("aggregate", {}).get("iqm") or {}
    found = {"score (IQM)": [iqm.get(key) for key in ("value", "low", "high")]}
    if len(tasks) == 1:
        mean = tasks[0].get("metrics", {}).get("return") or {}
        found["return"] = [mean.get(key) for key in ("mean", "mean_low", "mean_high")]
    return {name: values for name, values in found.items() if _is_number(values[0])}


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
    found = None
    if len(averaged) > 1 and (found := band(averaged)):
        n = len(averaged)
        of = "" if n == len(lines) else f" of {len(lines)}"
        found = replace(found, over=f"{n}{of} seeds")
    elif len(lines) == 1 and lines[0].low:
        line = lines[0]
        found = Band(line.x, line.y, line.low, line.high, "over evaluation seeds")
    return Series(group.label, lines, found)


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
    return Band(grid.tolist(), mean.tolist(), low.tolist(), high.tolist())
