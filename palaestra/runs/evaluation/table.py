"""Evaluations as a printed table: tasks down, the agents of each task together."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from palaestra.metrics.statistics import Interval
from palaestra.runs.evaluation.results import Estimate, Evaluation

_PRIMARY = ("regret", "return")
_WIDE = ("coverage", "suffix_failure", "win", "draw", "loss", "blunder_rate", "length")
"""Metrics that have a column where the terminal is wide."""

_WIDE_ENOUGH = 150
_FILE_WIDTH = 120
"""Columns where there is no terminal, so that no cell is broken into lines."""


def print_comparison(evaluations: Sequence[Evaluation], console: Console | None = None) -> None:
    """Print evaluations on the same tasks as one table, with every warning.

    Args:
      evaluations: of one suite and the same seeds, one for each agent.
      console: where to print; None is standard output.
    """
    console = console or Console()
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    console.print(comparison_table(evaluations, wide=console.width >= _WIDE_ENOUGH))
    console.print(_footnote(evaluations), style="dim", highlight=False)
    for warning in dict.fromkeys(w for evaluation in evaluations for w in evaluation.warnings):
        console.print(f"warning: {warning}", style="yellow", highlight=False)
    for evaluation in evaluations:
        if evaluation.not_applicable:
            console.print(_refused(evaluation), style="yellow", highlight=False)


def comparison_table(evaluations: Sequence[Evaluation], wide: bool = False) -> Table:
    """Return a row for each task and agent, then one for each agent over all tasks.

    Where a task knows the agent's figure, from a closed form or from many more episodes, a last
    column shows it.
    """
    first = evaluations[0]
    ids = list(dict.fromkeys(r.task.id for e in evaluations for r in e.tasks))
    metrics = {name for e in evaluations for r in e.tasks for name in r.metrics}
    primary = next(name for name in _PRIMARY if name in metrics)
    names = [primary, *(name for name in _WIDE if wide and name in metrics)]
    table = Table(title=f"suite {first.suite}, version {first.suite_version}")
    table.add_column("task", no_wrap=True)
    table.add_column("agent", no_wrap=True)
    known = {
        (e.agent, r.task.id): figure
        for e in evaluations
        for r in e.tasks
        if (figure := r.task.references(primary).get(e.agent)) is not None
    }
    for name in ("score, IQM", *names, *(["known"] if known else [])):
        table.add_column(name.replace("_", " "), justify="right", no_wrap=True)
    for id in ids:
        for number, (evaluation, result) in enumerate(_on(evaluations, id)):
            cells = [_mean(result.metrics.get(name)) for name in names]
            score = _with_interval(result.score.iqm, result.score.iqm_interval)
            task = "" if number else id.partition("/")[2]
            if known:
                figure = known.get((evaluation.agent, id))
                cells.append("" if figure is None else f"{figure:.{_digits(figure)}f}")
            table.add_row(task, evaluation.agent, score, *cells)
        if len(evaluations) > 1:
            table.add_section()
    if len(ids) > 1:
        table.add_section()
        for number, evaluation in enumerate(evaluations):
            score = _with_interval(*evaluation.aggregate["iqm"])
            table.add_row("" if number else "all tasks", evaluation.agent, score)
    return table


def _on(evaluations: Sequence[Evaluation], id: str) -> list[tuple]:
    return [(e, result) for e in evaluations for result in e.tasks if result.task.id == id]


def _mean(estimate: Estimate | None) -> str:
    return "" if estimate is None else _with_interval(estimate.mean, estimate.mean_interval)


def _with_interval(value: float, interval: Interval) -> str:
    """Return value and interval with as many decimals as three figures of the value need."""
    digits = _digits(value)
    return f"{value:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def _digits(value: float) -> int:
    return 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3


def _footnote(evaluations: Sequence[Evaluation]) -> str:
    """Return how the figures came about: seeds, episodes, interval, modes, versions."""
    first = evaluations[0]
    episodes = "/".join(map(str, sorted({r.episodes for e in evaluations for r in e.tasks})))
    over = f"{len(first.seeds)} seeds" if first.over == "seeds" else "the episodes of one seed"
    modes = ", ".join(dict.fromkeys(f"{e.agent}: {e.mode}" for e in evaluations))
    versions = ", ".join(f"{name} {version}" for name, version in first.versions.items())
    return (
        f"[{100 * first.level:g} % bootstrap interval over {over}], {episodes} episodes for each "
        f"seed and task; policy mode {modes}; {versions}"
    )


def _refused(evaluation: Evaluation) -> str:
    """Return which tasks the agent could not play, and why the first of them."""
    tasks = evaluation.not_applicable
    names = ", ".join(id.partition("/")[2] for id in tasks)
    reason = next(iter(tasks.values()))
    return f"{evaluation.agent} does not apply to {names} ({reason})"
