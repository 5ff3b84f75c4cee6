"""The summary: what was trained, on what, and how it compares, in plain words."""

from collections.abc import Sequence

from palaestra.runs.report.format import interval, listed, number
from palaestra.runs.report.groups import Group
from palaestra.runs.report.tables import Row, Table, compare, main_tables


def summary(groups: Sequence[Group], found: Sequence[Table]) -> str:
    """Return two to four sentences."""
    sentences = [_trained(group, named=len(groups) > 1) for group in groups]
    for table in main_tables(found):
        sentences += [_compared(row, table) for row in table.rows if row.trained]
    if not found:
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
    n, whole = len(group.runs), sum(run.status == "succeeded" for run in group.runs)
    seeds = f", {n} training seeds" if n > 1 else ""
    seeds += f", {whole} of them to the end" if whole < n > 1 else ""
    return f"{what} was trained{where}{steps}{seeds}."


def _compared(row: Row, table: Table) -> str:
    column = table.primary
    figure = row.cells.get(column.key)
    if figure is None:
        return ""
    place = table.task or f"suite {table.suite}"
    value = number(figure.value, column.digits)
    bounds = interval(figure.low, figure.high, column.digits)
    value += f" (95 % interval {bounds})" if bounds else ""
    reached = (
        f"On {place}, {row.agent} reaches a {column.label[0].lower()}{column.label[1:]} of {value}"
    )
    sides: dict[str, list[str]] = {"better": [], "equal": [], "worse": []}
    for other in table.rows:
        rival = other.cells.get(column.key)
        if other.trained or rival is None:
            continue
        found = compare(figure, rival, column.better)
        gap = ""
        if (d := found.difference) is not None:
            # One decimal more: an end that rounds to 0 would deny what is said.
            ends = interval(d.low, d.high, column.digits + 1)
            gap = f"; paired difference {number(d.value, column.digits + 1)} {ends}"
        sides[found.side].append(f"{other.agent} ({number(rival.value, column.digits)}{gap})")
    said = {"better": "better than", "equal": "not told apart from", "worse": "behind"}
    parts = [f"{words} {listed(sides[side])}" for side, words in said.items() if sides[side]]
    return f"{reached}: {'; '.join(parts)}." if parts else f"{reached}."


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
