"""Estimate: a number with its interval, the same in evaluations, reports and cards."""

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Estimate:
    """A number and, where it has one, its 95 % interval; nan is a number that is not defined."""

    value: float
    low: float | None = None
    high: float | None = None
    by_seed: dict[int, float] = field(default_factory=dict)
    """The means of the evaluation seeds, which all agents share."""
    by_run: "dict[str, Estimate]" = field(default_factory=dict)
    """The estimates of the training runs, by run id, where there are several."""

    @property
    def bounds(self) -> tuple[float, float]:
        """The interval; the value itself where there is none."""
        known = self.low is not None and self.high is not None
        return (self.low, self.high) if known else (self.value, self.value)  # type: ignore[return-value]

    @property
    def defined(self) -> bool:
        """Whether there is a number."""
        return math.isfinite(self.value)
