"""The result of an evaluation: what was played, every episode, estimates with intervals."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from palaestra.envs.suites import Task
from palaestra.metrics.statistics import Interval

SCHEMA = 1
"""Version of the layout of `summary.json`."""


@dataclass(frozen=True)
class Estimate:
    """A mean and an IQM with their intervals."""

    mean: float
    mean_interval: Interval
    iqm: float
    iqm_interval: Interval
    by_seed: tuple[float, ...] = ()
    """The mean of each seed's episodes, the numbers that were resampled (unless there is one)."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "mean": self.mean,
            "mean_low": self.mean_interval.low,
            "mean_high": self.mean_interval.high,
            "iqm": self.iqm,
            "iqm_low": self.iqm_interval.low,
            "iqm_high": self.iqm_interval.high,
            "by_seed": list(self.by_seed),
        }


@dataclass(frozen=True)
class TaskResult:
    """What was found on one task."""

    task: Task
    episodes: int
    """Episodes for each seed."""
    score: Estimate
    metrics: dict[str, Estimate]
    rows: list[dict[str, Any]]
    """One for each episode: task, seed, episode, return, length, metrics."""
    strip: list[dict[str, Any]]
    """The first episodes step by step: actions, rewards and, of a bandit, expected rewards."""

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
            "strip": self.strip,
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
    aggregate: dict[str, tuple[float, Interval]]
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
                name: {"value": value, "low": interval.low, "high": interval.high}
                for name, (value, interval) in self.aggregate.items()
            },
            "metrics": self.units,
            "tasks": [result.to_json() for result in self.tasks],
            "not_applicable": self.not_applicable,
        }
        return _finite(data)

    def save(self, folder: Path) -> None:
        """Write `episodes.jsonl` (every episode) and `summary.json` into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(row) for row in self.rows]
        (folder / "episodes.jsonl").write_text("".join(f"{line}\n" for line in lines), "utf-8")
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False)
        (folder / "summary.json").write_text(f"{text}\n", "utf-8")


def _finite(data: Any) -> Any:
    """Return `data` with null in place of nan and infinities, which JSON does not know."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    if isinstance(data, np.generic):
        data = data.item()
    return None if isinstance(data, float) and not np.isfinite(data) else data
