"""Schedules: how a learning rate, a bonus or a clip changes over a run."""

import math
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from palaestra.options import Options

Name = Literal["constant", "linear", "cosine"]


class ScheduleOptions(Options):
    """A schedule: factor 1 at the beginning (after the warm-up) and `final` at the end of the run.

    In a configuration its name alone is enough: `linear` is `{name: linear}`.
    """

    name: Name = Field(description="constant, a straight line, or half a cosine wave")
    warmup: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="the factor rises from 0 to 1 in this share of the run (below 1), or in so "
        "many agent steps (from 1)",
    )
    final: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="factor at the end of the run, of linear and cosine",
    )

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _constant_has_no_end(self) -> Self:
        if self.name == "constant" and self.final:
            raise ValueError("final is for linear and cosine, not for constant")
        return self

    @model_serializer(mode="wrap")
    def _name_alone(self, dump: SerializerFunctionWrapHandler) -> Any:
        return dump(self) if self.warmup or self.final else self.name


def schedule_field(of: str) -> Any:
    """Return the field of a schedule, constant by default, in an options model."""
    return Field(
        "constant",
        validate_default=True,
        description=f"schedule of {of}: constant, linear, cosine, or a mapping of name, warmup "
        "(share of the run, or agent steps) and final (factor at the end)",
    )


@dataclass(frozen=True)
class Schedule:
    """A factor of a base value as a function of the part of the run that remains.

    With w the `warmup` and p the remaining part: (1 - p) / w while 1 - p < w; after it, with
    q = p / (1 - w), which falls from 1 to 0:

        constant: 1
        linear:   final + (1 - final) q
        cosine:   final + (1 - final) (1 - cos(pi q)) / 2      (arXiv 1608.03983, one period)

    Attributes:
      name: "constant", "linear" or "cosine".
      warmup: share of the run, in [0, 1].
      final: factor at the end.
    """

    name: Name
    warmup: float = 0.0
    final: float = 0.0

    def __call__(self, remaining: float) -> float:
        """Return the factor when that part of the run, 1 to 0, remains."""
        if 1 - remaining < self.warmup:
            return (1 - remaining) / self.warmup
        if self.name == "constant":
            return 1.0
        q = min(1.0, remaining / (1 - self.warmup)) if self.warmup < 1 else 1.0
        q = q if self.name == "linear" else (1 - math.cos(math.pi * q)) / 2
        return self.final + (1 - self.final) * q


def make_schedule(options: ScheduleOptions, total_steps: int) -> Schedule:
    """Return the schedule of a run of `total_steps` agent steps; constant if it has no end (0)."""
    if not total_steps:
        return Schedule("constant")
    share = options.warmup if options.warmup < 1 else min(1.0, options.warmup / total_steps)
    return Schedule(options.name, share, options.final)


def remaining(agent_steps: int, total_steps: int) -> float:
    """Return the part of the run that remains, 1 to 0; 1 if it has no end (0)."""
    return max(0.0, 1 - agent_steps / total_steps) if total_steps else 1.0


@dataclass(frozen=True)
class Scheduled:
    """A value under a schedule, as a function of the part of the run that remains.

    Attributes:
      value: at factor 1.
      schedule: the factor.
    """

    value: float
    schedule: Schedule

    def __call__(self, remaining: float) -> float:
        """Return the value when that part of the run, 1 to 0, remains."""
        return self.value * self.schedule(remaining)
