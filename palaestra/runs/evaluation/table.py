"""Evaluations as a printed table: tasks down, the agents of each task together."""

from collections.abc import Sequence

from rich.console import Console

from palaestra.runs.evaluation.results import Evaluation
from palaestra.runs.report.read import Evaluated
from palaestra.runs.report.results import result_of
from palaestra.runs.report.tables import suite_tables
from palaestra.runs.report.terminal import print_tables


def print_comparison(evaluations: Sequence[Evaluation], console: Console | None = None) -> None:
    """Print evaluations on the same tasks as one table, with every warning.

    Args:
      evaluations: of one suite and the same seeds, one for each agent.
      console: where to print; None is standard output.
    """
    console = console or Console()
    suite = evaluations[0].suite
    played = [Evaluated(suite, 0, e.agent, e.to_json()) for e in evaluations]
    tables = suite_tables(suite, [result_of(item, item.agent) for item in played])
    print_tables(tables, console)
    for warning in dict.fromkeys(warning for table in tables for warning in table.warnings):
        console.print(f"warning: {warning}", style="yellow", highlight=False, markup=False)
