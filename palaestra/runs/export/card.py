"""The model card: front matter as model hubs read it, then a page for people."""

from collections.abc import Iterable, Sequence
from typing import Any

import yaml
from markupsafe import Markup

from palaestra.runs.config import RunConfig
from palaestra.runs.export.layout import REPLAY
from palaestra.runs.export.results import of_checkpoint
from palaestra.runs.report.format import duration
from palaestra.runs.report.groups import group_runs
from palaestra.runs.report.read import Evaluated, Run
from palaestra.runs.report.render import text
from palaestra.runs.report.tables import Table, suite_grid, tables

Row = dict[str, Any]

_TASK = {"type": "reinforcement-learning", "name": "reinforcement-learning"}


def card(
    name: str,
    config: RunConfig,
    results: Row,
    pictures: Sequence[str],
    notes: Sequence[str],
) -> str:
    """Return the text of `README.md`.

    Args:
      name: of the export.
      config: of the run.
      results: what `results_of` returned.
      pictures: files that show the replay.
      notes: what has to be said about the replay.
    """
    front = yaml.safe_dump(_front_matter(name, config, results), sort_keys=False)
    seconds = results["training"].get("wall_seconds")
    return text(
        "card.md",
        name=name,
        front=Markup(front),  # not markup: read by programs before the text begins
        config=config,
        results=results,
        suites=_suites(config, results),
        pictures=pictures,
        notes=notes,
        replay=REPLAY,
        time="" if seconds is None else duration(seconds),
    )


def _front_matter(name: str, config: RunConfig, results: Row) -> Row:
    tags = ["reinforcement-learning", config.env.id, config.agent["name"]]
    tags += [config.policy["name"]] if config.policy else []
    index = [entry for e in of_checkpoint(results) if e["trained"] for entry in _index(e)]
    front: Row = {
        "library_name": "palaestra",
        "pipeline_tag": "reinforcement-learning",
        "tags": list(dict.fromkeys([*tags, "palaestra"])),
    }
    # A hub refuses an index without results.
    return front | ({"model-index": [{"name": name, "results": index}]} if index else {})


def _index(evaluation: Row) -> Iterable[Row]:
    """Yield the results of one evaluation in the schema of hubs, one entry a task."""
    for task in evaluation["tasks"]:
        metrics = [
            {"type": kind, "name": title, "value": estimate["mean"]}
            for kind, title, estimate in (
                ("mean_reward", "mean return", task["metrics"].get("return")),
                ("score", "mean score", task["score"]),
            )
            if estimate is not None and estimate["mean"] is not None
        ]
        yield {
            "task": dict(_TASK),
            "dataset": {"name": task["id"], "type": task["env_id"]},
            "metrics": metrics,
        }


def _suites(config: RunConfig, results: Row) -> list[Row]:
    """Return the grid of each suite, as reports show it, with what has to be known to read it."""
    found = of_checkpoint(results)
    evaluated = [Evaluated(e["suite"], e["agent_steps"], e["agent"], e) for e in found]
    settings = config.model_dump(mode="json")
    run = Run(
        results["run_id"],
        settings,
        {"run_id": results["run_id"]},
        evaluated=evaluated,
        agent=results["agent"],
    )
    by_suite: dict[str, list[Table]] = {}
    for table in tables(group_runs([run])):
        by_suite.setdefault(table.suite, []).append(table)
    return [
        {
            "grid": suite_grid(of_suite),
            "notes": of_suite[0].notes,
            "warnings": of_suite[0].warnings,
            "protocol": next(e["protocol"] for e in found if e["suite"] == suite),
        }
        for suite, of_suite in by_suite.items()
    ]
