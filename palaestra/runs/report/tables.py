"""Tables: agents down, figures across, marked where one is significantly the best."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from palaestra.metrics.statistics import bootstrap_interval, mean
from palaestra.runs.report.estimate import Estimate
from palaestra.runs.report.format import counted, decimals, interval, listed, number
from palaestra.runs.report.groups import Group
from palaestra.runs.report.results import Result, results
from palaestra.seeding import Role, generator

ENOUGH_SEEDS = 5
"""With fewer, bootstrap intervals are too short: a nominal 95 % covers 88 % with 3."""


@dataclass(frozen=True)
class Column:
    """One figure of the table; `better` is "higher", "lower" or "" where neither is."""

    key: str
    label: str
    meaning: str
    better: str = ""
    digits: int = 2


REPETITIONS = 10_000
"""Bootstrap repetitions of a comparison of two agents."""

_UNKNOWN = Estimate(math.nan)

_SCORE = "0 is uniform play, in memory tasks the best play without memory; 1 the best play known"

COLUMNS = (
    Column(
        "score_iqm",
        "Score (IQM)",
        f"interquartile mean over seeds and tasks; {_SCORE}",
        "higher",
    ),
    Column("score", "Score", _SCORE, "higher"),
    Column("return", "Return", "sum of the rewards of an episode", "higher"),
    Column("return_iqm", "Return (IQM)", "interquartile mean of the seeds' mean returns", "higher"),
    Column("regret", "Regret", "sum over steps of best minus chosen expected reward", "lower"),
    Column("regret_iqm", "Regret (IQM)", "interquartile mean of the seeds' mean regrets", "lower"),
    Column("optimal_fraction", "OptFrac", "share of the steps on the best arm", "higher"),
    Column("coverage", "Coverage", "share of the arms tried at least once"),
    Column(
        "greedy_fraction", "GreedyFrac", "share of the steps on an arm of highest empirical mean"
    ),
    Column(
        "suffix_failure",
        "SuffFail",
        "share of episodes that never pull the best arm in their second half",
        "lower",
    ),
    Column(
        "k_min_fraction",
        "K·MinFrac",
        "K times the share of the least pulled arm; near 1 is uniform play",
    ),
    Column("win", "Wins", "share of games won", "higher"),
    Column("draw", "Draws", "share of games drawn"),
    Column("loss", "Losses", "share of games lost", "lower"),
    Column("blunder_rate", "Blunders", "blunders per legal decision", "lower"),
    Column("illegal_rate", "Illegal", "illegal actions per decision", "lower"),
    Column("length", "Length", "steps of an episode"),
    Column("known", "Known", "the figure by which agents are compared, from theory or long play"),
)
"""Known figures in the order in which they are shown; others follow under their own names."""

_LEFT_OUT = {
    "realised_regret",
    "best_arm_pulls",
    "greedy_fraction_all_tried",
    "greedy_fraction_some_untried",
    "blunder_rate_possible",
    "optimality_gap",
}
"""Figures that say nearly the same as a shown one; `summary.json` has them."""


@dataclass(frozen=True)
class Row:
    """One agent's figures by column."""

    agent: str
    trained: bool
    cells: dict[str, Estimate]
    over: str = ""
    """What its intervals resample, as "5 training seeds"."""
    runs: dict[str, int | None] = field(default_factory=dict)
    """Training seed of each of its runs, by run id."""

    @property
    def by_run(self) -> "list[Row]":
        """One row for each training run, by seed; none where there is a single run."""
        if len(self.runs) < 2:
            return []
        rows = [
            Row(
                name if seed is None else f"seed {seed}",
                False,
                {key: cell.by_run[name] for key, cell in self.cells.items() if cell.by_run},
                runs={name: seed},
            )
            for name, seed in self.runs.items()
        ]
        return sorted(rows, key=lambda row: min(seed or 0 for seed in row.runs.values()))


@dataclass(frozen=True)
class Table:
    """Agents compared on one task, or on all tasks of a suite (`task` is empty)."""

    title: str
    suite: str
    task: str
    columns: list[Column]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def primary(self) -> Column:
        """The column by which agents are compared: regret, else score (IQM first), else return."""
        by_key = {column.key: column for column in self.columns}
        wanted = ("regret", "score_iqm", "score", "return")
        return next((by_key[key] for key in wanted if key in by_key), self.columns[0])

    def best(self, column: Column) -> Row | None:
        """Return the row that is significantly better than each other row, if there is one."""
        rows = [row for row in self.rows if column.key in row.cells]
        if not column.better or len(rows) < 2:
            return None
        first, *others = sorted(rows, key=lambda row: _rank(row, column))
        own = first.cells[column.key]
        won = (compare(own, row.cells[column.key], column.better).side for row in others)
        return first if all(side == "better" for side in won) else None


@dataclass(frozen=True)
class Comparison:
    """How a figure compares with another: better, equal (not told apart) or worse.

    `difference` is the mean paired difference with its interval, where the pairs are known.
    """

    side: str
    difference: Estimate | None = None


def compare(figure: Estimate, rival: Estimate, better: str) -> Comparison:
    """Compare two figures, of which `better` is "higher" or "lower".

    Agents that played the same seeds met the same instances: the interval of their paired
    difference decides. Otherwise they are equal where their intervals overlap.
    """
    difference = None
    if len(figure.by_seed) > 1 and figure.by_seed.keys() == rival.by_seed.keys():
        gaps = np.array([value - rival.by_seed[seed] for seed, value in figure.by_seed.items()])
        found = bootstrap_interval(gaps[:, None], generator(0, Role.STATISTICS), mean, REPETITIONS)
        difference = Estimate(float(gaps.mean()), found.low, found.high)
        equal = found.low <= 0 <= found.high
    else:
        (low, high), (rival_low, rival_high) = figure.bounds, rival.bounds
        equal = low <= rival_high and rival_low <= high
    won = (figure.value > rival.value) == (better != "lower")
    return Comparison("equal" if equal else "better" if won else "worse", difference)


@dataclass(frozen=True)
class Cell:
    """One place of a table as it is shown: a text, a smaller one, and what it is sorted by."""

    text: str = "\N{EN DASH}"
    small: str = ""
    value: float | str = ""
    best: bool = False
    run: str = ""
    """The run to whose part of the page it leads."""


@dataclass(frozen=True)
class Line:
    """A row as it is shown; the first cell names it. `kind`: trained, baseline or unfinished."""

    kind: str
    cells: list[Cell]


@dataclass(frozen=True)
class Grid:
    """A table as pages, terminals and cards show it: label and meaning of each column, rows."""

    title: str
    heads: list[tuple[str, str]]
    lines: list[Line]


def shown(value: float, digits: int, low: float | None = None, high: float | None = None) -> Cell:
    """Return the cell of a number with its interval."""
    if not math.isfinite(value):
        return Cell()
    return Cell(number(value, digits), interval(low, high, digits), value)


def _cells(row: Row, columns: Sequence[Column], best: Sequence[Row | None]) -> list[Cell]:
    """Return the figures of a row; `best` holds the best row of each column."""
    cells = []
    for column, winner in zip(columns, best, strict=True):
        figure = row.cells.get(column.key, _UNKNOWN)
        cell = shown(figure.value, column.digits, figure.low, figure.high)
        cells.append(replace(cell, best=row is winner))
    return cells


def grid(table: Table) -> Grid:
    """Return a table with a row for each agent."""
    best = [table.best(column) for column in table.columns]
    several = any(row.by_run for row in table.rows)
    lines = [
        Line(
            _kind(row),
            [
                Cell(row.agent, row.over if several else "", row.agent),
                *_cells(row, table.columns, best),
            ],
        )
        for row in table.rows
    ]
    return Grid(table.title, _heads("Agent", table.columns), lines)


def seed_grid(table: Table, row: Row) -> Grid:
    """Return a row's training runs, each leading to its run; among them none is the best."""
    nobody = [None] * len(table.columns)
    lines = [
        Line("", [Cell(of.agent, "", of.agent, run=run), *_cells(of, table.columns, nobody)])
        for of in row.by_run
        for run in of.runs
    ]
    return Grid(f"{row.agent} by training seed", _heads("Seed", table.columns), lines)


def suite_grid(tables: Sequence[Table], most: int | None = None) -> Grid:
    """Return one suite with a row for each task and agent; what is over all tasks comes last.

    Args:
      tables: of the suite.
      most: figures that are shown, the ones first by which agents are compared; None means all.
    """
    known = {column.key: column for table in tables for column in table.columns}
    primary = tables[-1].primary.key
    order = ("score_iqm", primary, "known", f"{primary}_iqm", "score", "return")
    columns = [known[key] for key in dict.fromkeys(order) if key in known][:most]
    nobody = [None] * len(columns)
    lines = []
    for table in sorted(tables, key=lambda table: not table.task):
        for i, row in enumerate(table.rows):
            task = table.task.partition("/")[2] or table.task or "all tasks"
            names = [Cell("" if i else task), Cell(row.agent), Cell(row.over)]
            lines.append(Line(_kind(row), [*names, *_cells(row, columns, nobody)]))
    heads = [("task", ""), ("agent", ""), ("intervals over", ""), *_heads("", columns)[1:]]
    return Grid(f"suite {tables[0].suite}", heads, lines)


def _kind(row: Row) -> str:
    return "trained" if row.trained else "baseline"


def _heads(first: str, columns: Sequence[Column]) -> list[tuple[str, str]]:
    return [(first, ""), *((column.label, column.meaning) for column in columns)]


def tables(groups: Sequence[Group]) -> list[Table]:
    """Return for each suite the table over its tasks and, for several tasks, one for each."""
    by_suite: dict[str, list[Result]] = {}
    for result in results(groups):
        by_suite.setdefault(result.suite, []).append(result)
    return [table for suite, found in by_suite.items() for table in suite_tables(suite, found)]


def suite_tables(suite: str, found: Sequence[Result]) -> list[Table]:
    """Return the table over all tasks of a suite and one for each.

    The first is left out where nobody has a figure over several tasks, as in the environments of
    runs, whose returns are different quantities.
    """
    tasks = list(dict.fromkeys(task for result in found for task in result.tasks))
    if not any(result.overall and len(result.tasks) > 1 for result in found):
        return [
            _table(suite, task, [r for r in found if task in r.tasks or not r.tasks], main=True)
            for task in tasks
        ]
    by_task = [_table(suite, task, found, main=False) for task in tasks]
    return [_table(suite, "", found, main=True), *by_task]


def _table(suite: str, task: str, found: Sequence[Result], main: bool) -> Table:
    cells = {r.label: r.tasks.get(task, {}) if task else r.overall for r in found}
    keys = {key for figures in cells.values() for key in figures}
    known = [column for column in COLUMNS if column.key in keys]
    meanings = {key: text for r in found for key, text in r.meanings.items()}
    new = sorted(keys - {column.key for column in known} - _LEFT_OUT)
    others = [Column(key, key, meanings.get(key, "")) for key in new]
    columns = [_fitted(column, cells.values()) for column in known + others]
    rows = [
        Row(r.label, r.trained, cells[r.label], counted(r.units, r.over), r.runs)
        for r in found
        if cells[r.label]
    ]
    table = Table(
        title=f"Evaluation on {task or f'suite {suite}'}",
        suite=suite,
        task=task,
        columns=columns,
        rows=rows,
        notes=_notes(found) if main else [],
        warnings=_warnings(suite, found) if main else [],
    )
    primary = table.primary
    rows.sort(key=lambda row: _rank(row, primary))
    return table


def _rank(row: Row, column: Column) -> float:
    if column.key not in row.cells:
        return float("inf")
    value = row.cells[column.key].value
    return value if column.better == "lower" else -value


def _fitted(column: Column, rows: Iterable[dict[str, Estimate]]) -> Column:
    """Return the column with as many decimals as its figures need, the same in every row."""
    values = [row[column.key].value for row in rows if column.key in row]
    return replace(column, digits=min(3, decimals(values)) if any(values) else 2)


def _notes(found: Sequence[Result]) -> list[str]:
    """Say how the figures came about: what was resampled, episodes, policy mode, versions."""
    episodes = sorted({r.episodes for r in found})
    notes = [
        f"Means with 95 % bootstrap intervals over {_resampled(found)}; "
        f"{listed([f'{n:,}' for n in episodes], 'or')} episodes of each task and evaluation seed. "
        f"Policy mode: {_modes(found)}."
    ]
    versions = {name: version for r in found for name, version in r.versions.items()}
    if versions:
        named = [
            f"{name.removesuffix('-' + version)} {version}" for name, version in versions.items()
        ]
        notes.append(f"Played with {', '.join(named)}.")
    return notes


def _resampled(found: Sequence[Result]) -> str:
    numbers: dict[str, set[int]] = {}
    for result in found:
        numbers.setdefault(result.over, set()).add(result.units)
    parts = [
        f"{listed([str(n) for n in sorted(units)[:-1]] + [counted(max(units), over)], 'or')}"
        for over, units in numbers.items()
    ]
    return f"{parts[0]} ({parts[1]} for the baselines)" if len(parts) > 1 else parts[0]


def _modes(found: Sequence[Result]) -> str:
    by_mode: dict[str, list[str]] = {}
    for result in found:
        by_mode.setdefault(result.mode or "not recorded", []).append(result.label)
    if len(by_mode) == 1:
        return next(iter(by_mode))
    return "; ".join(f"{mode} for {listed(labels)}" for mode, labels in by_mode.items())


def _warnings(suite: str, found: Sequence[Result]) -> list[str]:
    """Say where there are too few evaluation seeds."""
    few: dict[str, list[str]] = {}
    for result in found:
        if result.units < ENOUGH_SEEDS and result.over != "training seed":
            few.setdefault(counted(result.units, result.over), []).append(result.label)
    refused = [
        f"{result.label} does not apply to {listed(list(result.refused))} "
        f"({next(iter(result.refused.values()))})."
        for result in found
        if result.refused
    ]
    return refused + [
        f"Suite {suite}: {seeds} for {listed(labels)}; with fewer than {ENOUGH_SEEDS} the "
        "intervals are too narrow to be trusted."
        for seeds, labels in few.items()
    ]


def main_tables(found: Sequence[Table]) -> list[Table]:
    """Return of each suite the table over all its tasks; where it has none, each of its tables."""
    pooled = {table.suite for table in found if not table.task}
    return [table for table in found if not table.task or table.suite not in pooled]
