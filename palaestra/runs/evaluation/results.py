"""The result of an evaluation: what was played, every episode, estimates with intervals."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from palaestra.envs.suites import Task
from palaestra.experience.episodes import Episodes
from palaestra.runs.evaluation.recorded import to_bytes
from palaestra.runs.report.estimate import Estimate
from palaestra.runs.report.plain import finite
from palaestra.runs.store.files import write_folder
from palaestra.runs.store.record import safe

SCHEMA = 1
"""Version of the layout of `summary.json`."""


@dataclass(frozen=True)
class Estimates:
    """Mean and IQM of one metric over the evaluation seeds."""

    mean: Estimate
    iqm: Estimate
    by_seed: tuple[float, ...] = ()
    """The mean of each seed's episodes, the numbers that were resampled (unless there is one)."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        data: dict[str, Any] = {}
        for name, found in (("mean", self.mean), ("iqm", self.iqm)):
            data |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        return data | {"by_seed": list(self.by_seed)}


@dataclass(frozen=True)
class TaskResult:
    """What was found on one task."""

    task: Task
    episodes: int
    """Episodes for each seed."""
    score: Estimates
    metrics: dict[str, Estimates]
    rows: list[dict[str, Any]]
    """One for each episode: task, seed, episode, return, length, metrics."""
    trace: list[dict[str, Any]]
    """The first episodes step by step: actions, rewards and, of a bandit, expected rewards."""
    recorded: Episodes | None = None
    """The first seed's episodes with their observations, where these were asked for."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data, without the episodes."""
        task = self.task
        return {
            "id": task.id,
            "env_id": task.env_id,
            "env_kwargs": task.env_kwargs,
            "wrappers": list(task.wrappers),
            "episodes": self.episodes,
            "low": task.low,
            "high": task.high,
            "reference": task.reference,
            "source": task.source,
            "score": self.score.to_json(),
            "metrics": {name: estimate.to_json() for name, estimate in self.metrics.items()},
            "trace": self.trace,
        }


@dataclass(frozen=True)
class Evaluation:
    """One agent on one suite."""

    agent: str
    suite: str
    suite_version: int
    protocol: str
    mode: str
    seeds: tuple[int, ...]
    versions: dict[str, str]
    level: float
    repetitions: int
    tasks: list[TaskResult]
    units: dict[str, dict[str, str]]
    """Unit and meaning of each metric."""
    aggregate: dict[str, Estimate]
    """Scores over all tasks: iqm, mean, median and optimality_gap with intervals."""
    not_applicable: dict[str, str] = field(default_factory=dict)
    """Task id -> why the agent could not play it."""
    warnings: tuple[str, ...] = ()

    @property
    def over(self) -> str:
        """What the intervals resample: "seeds", or "episodes" where there is one seed."""
        return "seeds" if len(self.seeds) > 1 else "episodes"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Every episode of every task."""
        return [row for result in self.tasks for row in result.rows]

    def task(self, id: str) -> TaskResult:
        """Return the result of one task."""
        return next(result for result in self.tasks if result.task.id == id)

    def to_json(self) -> dict[str, Any]:
        """Return what `summary.json` holds; None stands for a number that is not defined."""
        data = {
            "schema": SCHEMA,
            "agent": self.agent,
            "suite": self.suite,
            "suite_version": self.suite_version,
            "protocol": self.protocol,
            "mode": self.mode,
            "seeds": list(self.seeds),
            "versions": self.versions,
            "intervals": {
                "level": self.level,
                "repetitions": self.repetitions,
                "over": self.over,
                "n": len(self.seeds) if self.over == "seeds" else None,
                "method": "percentile, stratified bootstrap",
            },
            "warnings": list(self.warnings),
            "aggregate": {
                name: {"value": found.value, "low": found.low, "high": found.high}
                for name, found in self.aggregate.items()
            },
            "metrics": self.units,
            "tasks": [result.to_json() for result in self.tasks],
            "not_applicable": self.not_applicable,
        }
        written: dict[str, Any] = finite(data)
        return written

    def save(
        self, folder: Path, *, agent_steps: int | None = None, config_hash: str | None = None
    ) -> None:
        """Write `episodes.jsonl` (every episode) and `summary.json` into `folder`, all or none.

        Observations that were kept go to `recorded-<task>.safetensors`, see `read_recorded`.

        Args:
          folder: what is in it is replaced.
          agent_steps: steps that the agent was trained for.
          config_hash: of the run that trained it.
        """
        trained = {"agent_steps": agent_steps, "config_hash": config_hash}
        text = json.dumps(self.to_json() | trained, indent=1, ensure_ascii=False)
        lines = "".join(f"{json.dumps(row)}\n" for row in self.rows)
        files = {"episodes.jsonl": lines.encode(), "summary.json": f"{text}\n".encode()}
        for result in self.tasks:
            if result.recorded is not None:
                name = result.task.id.rpartition("/")[2]
                files[f"recorded-{safe(name)}.safetensors"] = to_bytes(result.recorded)
        write_folder(files, folder)
