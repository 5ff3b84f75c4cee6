"""How long work shows itself: a bar in a terminal, lines of text elsewhere; always on stderr."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class ProgressDisplay:
    """Shows steps done of a total, their rate, the time left and a few figures.

    Args:
      title: what is being done.
      total: number of steps.
      unit: what a step is, e.g. "agent steps".
      quiet: show nothing.
      interval: seconds between two lines where there is no terminal.
      start: steps that were done before.
      log: called with each line that a terminal is not needed for.
    """

    def __init__(
        self,
        title: str,
        total: int,
        unit: str = "agent steps",
        *,
        quiet: bool = False,
        interval: float = 10,
        start: int = 0,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.quiet, self.interval = quiet, interval
        self.done, self._before = start, start
        self._log = log
        self._start = self._last = time.monotonic()
        self._bar: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if not self.quiet and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(elapsed_when_finished=True),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(
                self.title, total=self.total, completed=self.done, rate="", note=""
            )
        return self

    def advance(self, steps: int, note: str = "") -> None:
        """Count `steps` more as done; `note` is a few words on how it goes."""
        self.done += steps
        now = time.monotonic()
        rate = (self.done - self._before) / max(now - self._start, 1e-9)
        if self._bar is not None:
            self._bar.update(
                self._task, advance=steps, rate=f"{rate:,.0f} {self.unit}/s", note=note
            )
        if now - self._last > self.interval or self.done >= self.total:
            self._last = now
            self._tell(rate, note)

    def _tell(self, rate: float, note: str) -> None:
        left = max(0, self.total - self.done) / max(rate, 1e-9)
        line = (
            f"{self.done:,}/{self.total:,} {self.unit}, {rate:,.0f}/s, "
            f"{left:.0f} s left{', ' + note if note else ''}"
        )
        if self._log is not None:
            self._log(line)
        if self._bar is None and not self.quiet:
            print(f"{self.title}: {line}", file=sys.stderr, flush=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def say(message: str) -> None:
    """Tell the user something on standard error, so that standard output stays the result's."""
    print(message, file=sys.stderr, flush=True)
