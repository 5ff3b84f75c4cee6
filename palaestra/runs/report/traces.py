"""From evaluations to episode traces: the same first episodes as every agent played them."""

from collections.abc import Iterable, Sequence

from palaestra.runs.report.groups import Group
from palaestra.runs.report.read import Row
from palaestra.runs.report.results import is_trained
from palaestra.runs.report.views import Trace, view_of

MOST_AGENTS = 8
"""Agents shown beside each other in one episode."""


def traces(groups: Sequence[Group]) -> list[Trace]:
    """Return the episodes of the first task that has them, of each suite; trained agents first."""
    first: dict[str, str] = {}
    episodes: dict[str, dict[str, Row]] = {}
    for trained in (True, False):
        for suite, task, agent, record in _records(groups, trained):
            if first.setdefault(suite, task) == task:
                title = f"{task}, seed {record.get('seed', 0)}, episode {record.get('episode', 0)}"
                agents = episodes.setdefault(title, {})
                if len(agents) < MOST_AGENTS:
                    agents.setdefault(agent, record)
    found = [Trace(title, agents) for title, agents in episodes.items()]
    return [trace for trace in found if view_of(trace) is not None]


def _records(groups: Sequence[Group], trained: bool) -> Iterable[tuple[str, str, str, Row]]:
    """Yield (suite, task, agent, record) of the first run of each group."""
    for group in groups:
        for item in group.runs[0].last_evaluated():
            if is_trained(item, group.runs[0]) == trained:
                for task in item.summary.get("tasks", []):
                    # Evaluations of earlier versions call a trace a strip.
                    for record in task.get("trace") or task.get("strip") or []:
                        label = group.label if trained else item.agent
                        yield item.suite, str(task.get("id")), label, record
