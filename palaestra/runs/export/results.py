"""What is known about an exported agent: facts of its training and every evaluation of its run."""

from typing import Any

from palaestra.runs.config import RunConfig
from palaestra.runs.report.read import Evaluated, Run
from palaestra.runs.report.results import is_trained

SCHEMA_VERSION = 1

_TRAINING = ("agent_steps", "status", "wall_seconds", "device", "torch_threads", "python")


def results_of(run: Run, config: RunConfig, agent_steps: int) -> dict[str, Any]:
    """Return the content of `results.json`.

    Args:
      run: the run folder, as reports read it.
      config: its configuration.
      agent_steps: steps of the exported checkpoint.
    """
    training = {key: run.manifest.get(key) for key in _TRAINING}
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": run.manifest.get("run_id"),
        "agent": run.learner,
        "env_id": config.env.id,
        "agent_steps": agent_steps,
        "training": {
            "seed": config.seed,
            "total_steps": config.total_steps,
            **training,
            "packages": run.manifest.get("packages"),
            "code_version": run.manifest.get("code_version"),
        },
        "evaluations": [_evaluation(item, run) for item in run.evaluated],
    }


def of_checkpoint(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the evaluations that were made at the exported steps."""
    step = results["agent_steps"]
    return [e for e in results["evaluations"] if e["agent_steps"] == step]


def _evaluation(item: Evaluated, run: Run) -> dict[str, Any]:
    """Return a summary without its step-by-step records."""
    tasks = item.summary.get("tasks", [])
    return {
        **{key: value for key, value in item.summary.items() if key != "schema"},
        "suite": item.suite,
        "agent": item.agent,
        "agent_steps": item.step,
        "trained": is_trained(item, run),
        "tasks": [{k: v for k, v in task.items() if k != "strip"} for task in tasks],
    }
