"""The Ray tasks in which the seeds of one experiment are trained and evaluated."""

import os
import re
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from palaestra.errors import RunError, UserError
from palaestra.runs.config import resolve
from palaestra.runs.evaluation.run import evaluate_run
from palaestra.runs.progress import say
from palaestra.runs.store.folder import RUNS, RunFolder
from palaestra.runs.store.record import RunRecord
from palaestra.runs.sweeps.progress import SeedsDisplay
from palaestra.runs.sweeps.run import SeedRun
from palaestra.runs.training.train import Resume, train

MOST_CRASHES = 2
"""How often the task of one seed is started again after its process died."""

POLL_S = 0.5


@dataclass(frozen=True)
class Order:
    """What a task needs to know; paths are absolute."""

    config: dict[str, Any]
    run_id: str
    root: Path
    resume: Resume
    override_config: bool
    baselines: bool
    """Evaluate the baselines too."""
    folder: str
    """The user's working directory."""
    modules: tuple[str, ...]
    """Where the user's process finds modules, plug-ins among them."""


class SeedTasks:
    """The Ray tasks of all seeds: started in order, watched, stopped and started again.

    Args:
      runs: one a seed.
      parallel: tasks at the same time.
      resume, override_config: how runs begin that have a folder already, as for `train`.
    """

    def __init__(
        self, runs: Sequence[SeedRun], parallel: int, *, resume: Resume, override_config: bool
    ) -> None:
        self.runs, self.parallel = runs, parallel
        self.resume, self.override_config = resume, override_config
        self.waiting = deque(runs)
        self.running: dict[Any, SeedRun] = {}
        self.interrupted = False

    def run(self) -> bool:
        """Wait until every seed has ended; return whether the user interrupted.

        The first Ctrl-C (or SIGTERM) lets the runs write their checkpoints, a second one does not.
        """
        try:
            with SeedsDisplay(self.runs) as display, _signals(self._interrupt):
                while self.running or (self.waiting and not self.interrupted):
                    self._step(display)
        except KeyboardInterrupt:
            for call in self.running:
                ray.cancel(call, force=True)
            say("ended at once; what was learned since the last checkpoint is lost.")
        return self.interrupted

    def _step(self, display: SeedsDisplay) -> None:
        """Start what has a place, pass on a wish to stop, take in what has ended."""
        if self.interrupted:
            self._request_stop()
        while not self.interrupted and self.waiting and len(self.running) < self.parallel:
            self._start(self.waiting.popleft(), self.resume)
        if self.running:
            ended, _ = ray.wait(list(self.running), timeout=POLL_S)
            display.update()
            for call in ended:
                self._end(call, self.running.pop(call))

    def _start(self, run: SeedRun, resume: Resume) -> None:
        threads = run.config.threads
        caps = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        task = _train_one.options(num_cpus=threads, runtime_env={"env_vars": caps})
        order = Order(
            run.config.model_dump(mode="json"),
            run.run_id,
            RUNS.resolve(),
            resume,
            self.override_config,
            baselines=run is self.runs[0],
            folder=os.getcwd(),
            modules=tuple(os.path.abspath(path) for path in sys.path),
        )
        call = task.remote(order)
        self.running[call] = run

    def _end(self, call: Any, run: SeedRun) -> None:
        (run.path / "stop-requested").unlink(missing_ok=True)
        try:
            ray.get(call)
        except RayTaskError as error:
            self._fail(run, error.cause, str(error))
        except RayError as error:  # the process died: killed, out of memory, its node lost
            if self.interrupted and run.status == "succeeded":  # only its evaluation was cut short
                return
            if self.interrupted or run.crashes == MOST_CRASHES:
                self._fail(run, error, str(error))
                self._note_death(run)
                return
            run.crashes += 1
            say(f"{run.run_id}: its process died; start {run.crashes + 1} resumes it.")
            self._start(run, "auto")

    def _fail(self, run: SeedRun, cause: BaseException, trace: str) -> None:
        run.bad_input = isinstance(cause, UserError)
        known = isinstance(cause, UserError | RunError)
        run.error = str(cause) if known else f"{type(cause).__name__}: {cause}".partition("\n")[0]
        where = ""
        if not known and run.record:
            plain = re.sub(r"\x1b\[[0-9;]*m", "", trace)  # Ray colours it
            RunFolder.open(run.path).log(plain)
            where = f" (traceback: {run.path / 'log.txt'})"
        say(f"{run.run_id} failed: {run.error}{where}")

    def _note_death(self, run: SeedRun) -> None:
        """End the attempt in the manifest for a process that could not do it."""
        if run.record and run.record.manifest.get("status") == "running":
            RunFolder.open(run.path).end_attempt("failed", run.error)

    def _interrupt(self) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        say("stopping: the runs in progress write their checkpoints; Ctrl-C again ends at once.")

    def _request_stop(self) -> None:
        """Ask each run in progress to stop, also the ones that have only now begun."""
        for call, run in self.running.items():
            status = run.status
            if status == "running":
                (run.path / "stop-requested").touch()
            elif status == "succeeded":  # it is being evaluated, which leaves nothing to save
                ray.cancel(call, force=True)


@ray.remote(max_calls=1, max_retries=0)
def _train_one(order: Order) -> None:
    """Train one seed and evaluate it, in a process of its own that sees what the user's sees."""
    os.chdir(order.folder)
    sys.path.extend(path for path in order.modules if path not in sys.path)
    config = resolve(order.config)
    folder = train(
        config,
        order.run_id,
        root=order.root,
        resume=order.resume,
        override_config=order.override_config,
        quiet=True,
    )
    wanted = config.evaluation
    if folder.manifest["status"] != "succeeded" or wanted is None:
        return
    if not order.baselines:  # they learn nothing from the training seed: once is enough
        wanted = wanted.model_copy(update={"baselines": ()})
    if not RunRecord(folder.path).is_evaluated(wanted):
        evaluate_run(folder, wanted)


@contextmanager
def _signals(interrupt: Callable[[], None]) -> Iterator[None]:
    """Call `interrupt` on SIGINT and SIGTERM inside the block."""

    def handle(number: int, frame: FrameType | None) -> None:
        interrupt()

    numbers = (signal.SIGINT, signal.SIGTERM)
    former = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
