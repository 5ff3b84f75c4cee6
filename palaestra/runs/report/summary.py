"""The verdict: what was trained, on what, and how it compares, in plain words."""

from collections.abc import Sequence

import numpy as np

from palaestra.metrics.statistics import bootstrap_interval, mean
from palaestra.runs.report.format import listed, number
from palaestra.runs.report.groups import Group
from palaestra.runs.report.results import Figure
from palaestra.runs.report.tables import Row, Table
from palaestra.seeding import Role, generator


def verdict(groups: Sequence[Group], found: Sequence[Table]) -> str:
    """Return two to four sentences."""
    sentences = [_trained(group, named=len(groups) > 1) for group in groups]
    mains = list({table.suite: table for table in reversed(found)}.values())[::-1]
    for table in mains:
        sentences += [_compared(row, table) for row in table.rows if row.trained]
    if not mains:
        sentences += [_learned(group) for group in groups]
        sentences.append("It has not been evaluated yet.")
    return " ".join(sentence for sentence in sentences if sentence)


def _trained(group: Group, named: bool) -> str:
    run = max(group.runs, key=lambda run: run.steps)
    policy = f" with policy {run.policy_name}" if run.policy_name else ""
    what = group.label if named else "An agent"
    if run.agent_name and what != run.agent_name:
        what += f" ({run.agent_name}{policy})"
    steps = f" for {run.steps:,} agent steps" if run.steps else ""
    where = f" on {run.env_id}" if run.env_id else ""
    return f"{what} was trained{where}{steps}{_seeds(group)}."


def _seeds(group: Group) -> str:
    """Return how many seeds there are, and how many of them came to their end."""
    n = len(group.runs)
    whole = sum(run.status == "succeeded" for run in group.runs)
    if n == 1:
        return ""
    return f", {n} training seeds" + (f", {whole} of them to the end" if whole < n else "")


def _compared(row: Row, table: Table) -> str:
    column = table.primary
    figure = row.cells.get(column.key)
    if figure is None:
        return ""
    place = table.task or f"suite {table.suite}"
    value = _with_interval(figure, column.digits)
    reached = (
        f"On {place}, {row.agent} reaches a {column.label[0].lower()}{column.label[1:]} of {value}"
    )
    sides: dict[str, list[str]] = {"better": [], "equal": [], "worse": []}
    for other in table.rows:
        rival = other.cells.get(column.key)
        if other.trained or rival is None:
            continue
        side = _side(figure, rival, column.better)
        sides[side].append(f"{other.agent} ({number(rival.value, column.digits)})")
    parts = []
    if sides["better"]:
        parts.append(f"better than {listed(sides['better'])}")
    if sides["equal"]:
        parts.append(f"not told apart from {listed(sides['equal'])}")
    if sides["worse"]:
        parts.append(f"behind {listed(sides['worse'])}")
    return f"{reached}: {'; '.join(parts)}." if parts else f"{reached}."


def _side(figure: Figure, rival: Figure, better: str) -> str:
    """Return better, equal or worse.

    Agents that played the same seeds met the same instances: the interval of their paired
    difference decides. Otherwise they are equal where their intervals overlap.
    """
    if len(figure.by_seed) > 1 and figure.by_seed.keys() == rival.by_seed.keys():
        gaps = np.array([value - rival.by_seed[seed] for seed, value in figure.by_seed.items()])
        interval = bootstrap_interval(gaps[:, None], generator(0, Role.STATISTICS), mean)
        equal = interval.low <= 0 <= interval.high
    else:
        (low, high), (rival_low, rival_high) = figure.bounds, rival.bounds
        equal = low <= rival_high and rival_low <= high
    if equal:
        return "equal"
    above = figure.value > rival.value
    return "better" if above == (better != "lower") else "worse"


def _with_interval(figure: Figure, digits: int) -> str:
    value = number(figure.value, digits)
    if figure.low is None or figure.high is None:
        return value
    low, high = number(figure.low, digits), number(figure.high, digits)
    return f"{value} (95 % interval {low} to {high})"


def _learned(group: Group) -> str:
    """Return how the training return moved, from the first to the last tenth of the metrics."""
    logged = [row for run in group.runs for row in run.metrics if "rollout/return" in row]
    if len(logged) < 2:
        return ""
    logged.sort(key=lambda row: row["agent_steps"])
    tenth = max(1, len(logged) // 10)
    first, last = (
        sum(row["rollout/return"] for row in rows) / tenth
        for rows in (logged[:tenth], logged[-tenth:])
    )
    return f"In training its mean return went from {number(first)} to {number(last)}."
