"""What is known about an exported agent: facts of its training and every evaluation of its run."""

from typing import Any

from palaestra.runs.report.read import Evaluated
from palaestra.runs.store.record import RunRecord

SCHEMA_VERSION = 1

_TRAINING = (
    *("agent_steps", "status", "wall_seconds", "device", "torch_threads", "python"),
    *("packages", "code_version"),
)


def results_of(record: RunRecord, agent_steps: int) -> dict[str, Any]:
    """Return the content of `results.json`, for an export of the checkpoint at `agent_steps`."""
    manifest = record.manifest
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": record.id,
        "agent": record.agent,
        "env_id": record.config["env"]["id"],
        "agent_steps": agent_steps,
        "training": {
            "seed": record.config["seed"],
            "total_steps": record.config["total_steps"],
            **{key: manifest.get(key) for key in _TRAINING},
        },
        "evaluations": [_evaluation(item, record) for item in record.evaluations()],
    }


def of_checkpoint(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the evaluations that were made at the exported steps."""
    step = results["agent_steps"]
    return [e for e in results["evaluations"] if e["agent_steps"] == step]


def _evaluation(item: Evaluated, record: RunRecord) -> dict[str, Any]:
    """Return a summary without its step-by-step records."""
    tasks = item.summary.get("tasks", [])
    return {
        **{key: value for key, value in item.summary.items() if key != "schema"},
        "suite": item.suite,
        "agent": item.agent,
        "agent_steps": item.step,
        "trained": item.agent == record.agent,
        "tasks": [{k: v for k, v in task.items() if k not in ("trace", "strip")} for task in tasks],
    }
