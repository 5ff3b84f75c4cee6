"""Everything a report says, before it is drawn: gathered once, then written as page, JSON, PNG."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from palaestra.runs.report.curves import Chart, charts
from palaestra.runs.report.format import counted, duration, listed
from palaestra.runs.report.groups import Group, group_runs
from palaestra.runs.report.provenance import provenance, seconds
from palaestra.runs.report.read import Run
from palaestra.runs.report.results import is_trained
from palaestra.runs.report.summary import summary
from palaestra.runs.report.tables import ENOUGH_SEEDS, Table, tables
from palaestra.runs.report.traces import traces
from palaestra.runs.report.views import Trace


@dataclass(frozen=True)
class Report:
    """The content of one report."""

    title: str
    kicker: str
    summary: str
    notices: list[str]
    groups: list[Group]
    charts: list[Chart]
    tables: list[Table]
    traces: list[Trace]
    footer: str

    @property
    def runs(self) -> list[Run]:
        """All runs, group by group."""
        return [run for group in self.groups for run in group.runs]

    def as_dict(self) -> dict[str, Any]:
        """Return the data of curves and tables, as `report.json` holds it."""
        return {
            "title": self.title,
            "summary": self.summary,
            "notices": self.notices,
            "runs": [{"run_id": run.name, **provenance(run)} for run in self.runs],
            "charts": [asdict(chart) for chart in self.charts],
            "tables": [asdict(table) for table in self.tables],
        }


def gather(runs: Sequence[Run]) -> Report:
    """Return the report of the runs."""
    groups = group_runs(runs)
    found = tables(groups)
    return Report(
        title=_title(groups),
        kicker=_kicker(groups),
        summary=summary(groups, found),
        notices=_notices(groups, found),
        groups=groups,
        charts=charts(groups),
        tables=found,
        traces=traces(groups),
        footer=_footer(runs),
    )


def _title(groups: Sequence[Group]) -> str:
    experiments = list(dict.fromkeys(run.experiment for group in groups for run in group.runs))
    if len(experiments) < len(groups):
        return f"{listed(experiments)}: {listed([group.label for group in groups])}"
    return listed(experiments)


def _kicker(groups: Sequence[Group]) -> str:
    runs = [run for group in groups for run in group.runs]
    envs = list(dict.fromkeys(run.env_id for run in runs if run.env_id))
    total = sum(seconds(run) for run in runs)
    parts = ["Palaestra report", listed(envs), counted(len(runs), "run")]
    parts += [duration(total)] if total else []
    return " · ".join(part for part in parts if part)


def _notices(groups: Sequence[Group], found: Sequence[Table]) -> list[str]:
    notices: list[str] = []
    for group in groups:
        notices += _status_notices(group)
        dirty = [r for r in group.runs if (r.manifest.get("code_version") or {}).get("dirty")]
        if dirty:
            notices.append(f"{_named(dirty, group)}: the code had changes that no commit holds.")
        for run in group.runs:
            notices += [f"{run.name}: {notice}" for notice in run.notices]
        notices += _seed_notices(group, evaluated=bool(found))
        notices += _evaluation_notices(group)
    warnings = dict.fromkeys(warning for table in found for warning in table.warnings)
    return [*notices, *warnings]


def _status_notices(group: Group) -> list[str]:
    """Say which runs did not come to their end, and why."""
    notices = []
    for run in group.runs:
        if run.status not in ("", "succeeded"):
            reason = f" ({run.reason})" if run.reason else ""
            notices.append(
                f"{run.name}: the run is {run.status}{reason}; this is what it left so far."
            )
    whole = sum(run.status == "succeeded" for run in group.runs)
    if notices and whole > 1:
        notices.append(
            f"{group.label}: mean curves are of the {whole} runs that came to their end; the "
            "others are drawn as thin lines."
        )
    return notices


def _evaluation_notices(group: Group) -> list[str]:
    """Say where a group's figures are not of all its runs, or not of the same step."""
    by_suite: dict[str, dict[str, int]] = {}
    for run in group.runs:
        for item in run.last_evaluated():
            if is_trained(item, run):
                by_suite.setdefault(item.suite, {})[run.name] = item.step
    notices = []
    for suite, steps in by_suite.items():
        if len(steps) < len(group.runs):
            notices.append(
                f"{group.label}: suite {suite} was played by {len(steps)} of "
                f"{counted(len(group.runs), 'run')}."
            )
        if len(set(steps.values())) > 1:
            after = listed([f"{step:,}" for step in sorted(set(steps.values()))])
            notices.append(
                f"{group.label}: suite {suite} was played after {after} agent steps; the figures "
                "mix them."
            )
    return notices


def _named(runs: Sequence[Run], group: Group) -> str:
    """Return the run's name, or the group's where all of its runs are meant."""
    if len(runs) == len(group.runs) > 1:
        return group.label
    return listed([run.name for run in runs])


def _seed_notices(group: Group, evaluated: bool) -> list[str]:
    n = len(group.runs)
    if n == 1 and evaluated:
        return [
            f"{group.label} was trained with one seed: the intervals say nothing about how another "
            "training seed would do."
        ]
    if 1 < n < ENOUGH_SEEDS:
        return [
            f"{group.label}: {n} training seeds; with fewer than {ENOUGH_SEEDS} bands and "
            "intervals are too narrow to be trusted."
        ]
    return []


def _footer(runs: Sequence[Run]) -> str:
    version = (runs[0].manifest.get("packages") or {}).get("palaestra")
    made = f"Palaestra {version}" if version else "Palaestra"
    return f"Made from the run folders by {made}. This page works offline and loads nothing."
