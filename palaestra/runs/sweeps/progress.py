"""How several runs show themselves together: a bar for each in a terminal, lines elsewhere."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from palaestra.runs.report.format import duration

if TYPE_CHECKING:
    from palaestra.runs.sweeps.run import SeedRun

LINES_S = 10
"""Seconds between two reports where there is no terminal."""

_SHOWN = ("rollout/return", "rollout/regret")


@dataclass
class Pulse:
    """Where one run is, by the last line of its metrics."""

    run: "SeedRun"
    status: str = "waiting"
    steps: int = 0
    rate: float = 0.0
    note: str = ""

    def update(self) -> None:
        """Look at the run again; the note stays where no episode ended meanwhile."""
        self.status, record = self.run.status, self.run.record
        if record is None or not (line := record.last_metrics()):
            return
        self.steps, self.rate = line["agent_steps"], line["time/agent_steps_per_s"]
        name = next((name for name in _SHOWN if name in line), None)
        if name:
            self.note = f"{name.partition('/')[2]} {line[name]:.2f}"

    @property
    def words(self) -> str:
        """Rate, time left and last return; the run's status where it is not training."""
        if self.status == "succeeded":
            return ", ".join(part for part in ("trained", self.note) if part)
        if self.status != "running":
            return self.status
        left = max(0, self.run.config.total_steps - self.steps)
        times = [f"{self.rate:,.0f}/s, {duration(left / self.rate)} left"] if self.rate else []
        return ", ".join([*times, self.note] if self.note else times) or "starting"


class SeedsDisplay:
    """Shows every seed's steps, rate, time left and last return, on standard error."""

    def __init__(self, runs: Sequence["SeedRun"]) -> None:
        self.pulses = [Pulse(run) for run in runs]
        self._last = time.monotonic()
        self._bars: Progress | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[words]}"),
                console=Console(stderr=True),
            )
            for pulse in self.pulses:
                config = pulse.run.config
                self._bars.add_task(f"seed {config.seed}", total=config.total_steps, words="")
            self._bars.start()
        return self

    def update(self) -> None:
        """Read the runs again and show what is new."""
        for pulse in self.pulses:
            pulse.update()
        if self._bars is not None:
            for task, pulse in zip(self._bars.task_ids, self.pulses, strict=True):
                self._bars.update(task, completed=pulse.steps, words=pulse.words)
        elif time.monotonic() - self._last > LINES_S:
            self._last = time.monotonic()
            for pulse in [p for p in self.pulses if p.status == "running"]:
                print(line(pulse), file=sys.stderr, flush=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self.update()
            self._bars.stop()


def line(pulse: Pulse) -> str:
    """Return one line of the log on one seed."""
    config = pulse.run.config
    return f"seed {config.seed}: {pulse.steps:,}/{config.total_steps:,} agent steps, {pulse.words}"
