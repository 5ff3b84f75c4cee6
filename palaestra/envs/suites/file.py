"""Suites of one's own: from a YAML file, and of a single environment."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from palaestra.envs.suites.base import Suite, Task
from palaestra.errors import UserError
from palaestra.options import Options, validate


class TaskFile(Options):
    """One task of a suite file."""

    id: str = Field(description="name of the task in the suite")
    env: str = Field(description="environment id, of Palaestra, a plug-in or Gymnasium")
    options: dict[str, Any] = Field({}, description="keyword arguments of the environment")
    wrappers: tuple[str | dict[str, Any], ...] = Field((), description="wrappers, innermost first")
    episodes: int = Field(64, ge=1, description="episodes for each seed")
    mode: Literal["sample", "greedy"] = Field("greedy", description="how the agent acts")
    low: float | None = Field(None, description="return of uniform play; score 0")
    high: float | None = Field(None, description="best return that is known; score 1")
    source: str = Field("", description="where low and high come from")


class SuiteFile(Options):
    """A suite in a YAML file."""

    description: str = Field("", description="one sentence on what the suite is for")
    version: int = Field(1, ge=1, description="raised by whatever changes the meaning of a number")
    tasks: tuple[TaskFile, ...] = Field(description="what is played")


def suite_from_plain(raw: Mapping[str, Any], path: Path) -> Suite:
    """Return the suite that a file describes; it is called as the file is, without its ending.

    Raises:
      UserError: one line for each wrong field.
    """
    given = validate(SuiteFile, raw, str(path))
    if not given.tasks:
        raise UserError(f"{path}: tasks: none is given; one or more are accepted.")
    tasks = tuple(
        Task(
            f"{path.stem}/{task.id}",
            task.env,
            task.options,
            math.nan if task.low is None else task.low,
            math.nan if task.high is None else task.high,
            task.source or f"{path.name}",
            task.episodes,
            task.mode,
            wrappers=task.wrappers,
        )
        for task in given.tasks
    )
    return Suite(path.stem, given.version, tasks, _PROTOCOL, description=given.description)


TRAINING = "training-environment"
"""Name of the suite that is a run's own environment."""

_PROTOCOL = "Whole episodes of fresh environments; the return is what is reported."


def suite_of_environment(
    env_id: str, options: Mapping[str, Any], wrappers: tuple[Any, ...], mode: Any = "greedy"
) -> Suite:
    """Return the suite that is one environment with options and wrappers, scored by its return."""
    name = env_id.rpartition("/")[2].rpartition(":")[2]
    task = Task(
        f"{TRAINING}/{name}",
        env_id,
        dict(options),
        math.nan,
        math.nan,
        "no bounds are known; the return is reported",
        policy_mode=mode,
        wrappers=wrappers,
    )
    return Suite(TRAINING, 1, (task,), _PROTOCOL, description="the environment of training")
