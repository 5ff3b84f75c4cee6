"""The evaluation tables: agents down, figures across, the best of each column marked."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from palaestra.runs.report.curves import Level
from palaestra.runs.report.format import counted, decimals, listed
from palaestra.runs.report.groups import Group
from palaestra.runs.report.read import Run
from palaestra.runs.report.results import Figure, Result, results

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
    cells: dict[str, Figure]
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

    def best(self, column: Column) -> float | None:
        """Return the best value of a column, None where neither direction is better."""
        values = [row.cells[column.key].value for row in self.rows if column.key in row.cells]
        if not column.better or len(values) < 2:
            return None
        return max(values) if column.better == "higher" else min(values)


def tables(groups: Sequence[Group]) -> list[Table]:
    """Return for each suite the table over its tasks and, for several tasks, one for each."""
    by_suite: dict[str, list[Result]] = {}
    for result in results(groups):
        by_suite.setdefault(result.suite, []).append(result)
    return [table for suite, found in by_suite.items() for table in suite_tables(suite, found)]


def suite_tables(suite: str, found: Sequence[Result]) -> list[Table]:
    """Return the table over all tasks of a suite and one for each, or that of the only one."""
    tasks = list(dict.fromkeys(task for result in found for task in result.tasks))
    if len(tasks) == 1:
        return [_table(suite, tasks[0], found)]
    return [_table(suite, "", found), *(_table(suite, task, found) for task in tasks)]


def _table(suite: str, task: str, found: Sequence[Result]) -> Table:
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
        notes=_notes(found) if not task or len(found[0].tasks) == 1 else [],
        warnings=_warnings(suite, found) if not task or len(found[0].tasks) == 1 else [],
    )
    primary = table.primary
    rows.sort(key=lambda row: _rank(row, primary))
    return table


def _rank(row: Row, column: Column) -> float:
    if column.key not in row.cells:
        return float("inf")
    value = row.cells[column.key].value
    return value if column.better == "lower" else -value


def _fitted(column: Column, rows: Iterable[dict[str, Figure]]) -> Column:
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
    return f"{parts[0]} ({parts[1]} for the reference agents)" if len(parts) > 1 else parts[0]


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


def levels(groups: Sequence[Group]) -> dict[str, list[Level]]:
    """Return, by training metric, what the reference agents reach in the training environment."""
    found: dict[str, list[Level]] = {}
    runs = [run for group in groups for run in group.runs]
    for result in results(groups):
        same = {task for run in runs if (task := _training_task(run, result))}
        if result.trained or len(same) != 1:
            continue
        figures = result.tasks[same.pop()]
        for key in ("return", "regret", "length"):
            if key in figures:
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
