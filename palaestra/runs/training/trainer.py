"""The trainer: a loop advances round by round, and everything is recorded so that it can resume."""

import math
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import FrameType
from typing import Any

import numpy as np

from palaestra.agents.loop import EpisodeBatch, Iteration, Loop, join_episodes
from palaestra.errors import EnvironmentFailure, NotFiniteError, RunError
from palaestra.experience.weights import Weights
from palaestra.runs.config import RunConfig
from palaestra.runs.progress import ProgressDisplay, say
from palaestra.runs.rollouts.statistics import pack
from palaestra.runs.store.artifacts import write_artifacts
from palaestra.runs.store.checkpoints import Checkpoints
from palaestra.runs.store.folder import LOGS, RunFolder
from palaestra.runs.store.random_state import global_random_state, set_global_random_state
from palaestra.runs.training.stopping import StopRules

Evaluator = Callable[[RunFolder, Weights, int], dict[str, float]]
"""(run, weights, agent steps) -> metrics, as "evaluation/score"."""

LOOK_S = 0.5
"""Seconds between two looks for a request to stop."""


class Trainer:
    """One run in progress: its loop, its counters, and what is written of them.

    Args:
      config: the run's configuration.
      folder: where the run is recorded.
      loop: what collects and learns.
      quiet: show no progress.
      evaluator: evaluates weights at a step and returns the metrics of it, for
        `evaluation.every`.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        loop: Loop,
        *,
        quiet: bool = False,
        evaluator: Evaluator | None = None,
    ) -> None:
        self._evaluator = evaluator
        self.config = config
        self.folder = folder
        self.loop = loop
        self.quiet = quiet
        self.agent_steps = self.decisions = self.updates = self.episodes = 0
        keep = config.checkpoint
        self.checkpoints = Checkpoints(folder.checkpoints, keep.keep_last, keep.keep_every)
        self._every = keep.every or max(1, -(-config.total_steps // 10))
        self._num_checkpoints = 0  # scheduled ones
        self._on_schedule = False  # whether the last round passed a multiple of `every`
        self._best: float | None = None  # of the metric that decides which checkpoint is best
        self._line: dict[str, Any] = {}  # the last one of metrics
        self._since: list[EpisodeBatch] = []  # episodes since the last line of metrics
        self._metrics: dict[str, tuple[float, int]] = {}  # sum and count since then
        self._log_every = config.log_every or max(1, min(config.total_steps // 1000, 10_000))
        self._rules = StopRules(config.stop) if config.stop else None
        self._ended_by = ""
        self._collect_s = self._learn_s = 0.0
        self._interrupted = False
        self._random: dict[str, Any] | None = None

    def run(self) -> str:
        """Train until `total_steps` or a request to stop, and return the status of the run.

        Ctrl-C, SIGTERM and a file `stop-requested` in the run folder end the loop after the
        current round, with a checkpoint; a second Ctrl-C ends the process at once.
        """
        self.folder.begin_attempt(self.agent_steps)
        self._start = self._last = self._last_saved = self._last_looked = time.perf_counter()
        self._last_steps = self.agent_steps
        trackers = self._open_trackers()
        if self._random is not None:  # after whatever may have drawn from the global generators
            set_global_random_state(self._random)
        handlers = self._catch_signals()
        try:
            with self._progress() as progress:
                while self.agent_steps < self.config.total_steps and not self._stop():
                    before = self.agent_steps
                    done = self._advance()
                    found = self._evaluate(before)
                    line = self._record(before, found)
                    for tracker in trackers if line is not None else ():
                        tracker.log(line, self.agent_steps)
                    progress.advance(done.agent_steps, _note(line))
                    if self._is_due(before) or (found and self._is_best()):
                        self.save_checkpoint(wait=False, judged=bool(found))
            self.save_checkpoint()
            # An interrupt in the last round leaves nothing to continue.
            finished = self.agent_steps >= self.config.total_steps or self._ended_by
            self._end("succeeded" if finished else "stopped", self._ended_by)
        except (EnvironmentFailure, NotFiniteError) as error:
            # In the middle of a round: the checkpoint before is the last whole state.
            self._end("failed", str(error))
            self.folder.log("".join(traceback.format_exception(error)))
            say(f"{self._kept()} Traceback: {self.folder.path / 'log.txt'}")
            raise
        except RunError as error:
            # Workers or a checkpoint failed, between two rounds: the state is whole.
            self._save_in_need()
            self._end("failed", str(error))
            raise
        except OSError as error:
            raise self._unwritable(error) from error
        except BaseException as error:
            self._end("failed", f"{type(error).__name__}: {error}")
            raise
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for tracker in trackers:
                tracker.close()
            with suppress(RunError):  # told already, or of no account beside what ended the run
                self.checkpoints.wait()
        result: str = self.folder.manifest["status"]
        return result

    def _advance(self) -> Iteration:
        """Collect and learn once, count it and note the episodes that ended."""
        done = self.loop.advance()
        self._collect_s += done.collect_s
        self._learn_s += done.learn_s
        self.agent_steps += done.agent_steps
        self.decisions += done.decisions
        self.updates += 1
        batch = done.episodes
        self.episodes += len(batch.env)
        self._since.append(batch)
        for name, value in done.metrics.items():
            total, count = self._metrics.get(name, (0.0, 0))
            self._metrics[name] = (total + value, count + 1)
        if len(batch.env):
            columns = {"env": batch.env, **_columns(batch)}
            self.folder.write_episodes(
                {"agent_steps": self.agent_steps}
                | {name: np.round(column, 6).tolist() for name, column in columns.items()}
            )
        return done

    def _evaluate(self, before: int) -> dict[str, float]:
        """Evaluate where that is due, and return the metrics of it."""
        wanted = self.config.evaluation
        if wanted is None or wanted.every is None or self._evaluator is None:
            return {}
        if self.agent_steps // wanted.every == before // wanted.every:
            return {}
        state = global_random_state()  # whatever evaluation draws, training does not notice
        try:
            return self._evaluator(self.folder, self._packed(), self.agent_steps)
        finally:
            set_global_random_state(state)

    def _record(self, before: int, found: Mapping[str, float]) -> dict[str, Any] | None:
        """Write a line of metrics where one is due, and return it.

        Metrics of updates are means over those since the last line.
        """
        due = self.agent_steps // self._log_every > before // self._log_every
        if not due and not found and self.agent_steps < self.config.total_steps:
            return None
        now = time.perf_counter()
        rate = (self.agent_steps - self._last_steps) / (now - self._last)
        line: dict[str, Any] = {
            "agent_steps": self.agent_steps,
            "decisions": self.decisions,
            "frames": self.agent_steps * self.loop.frames_per_step,
            "updates": self.updates,
            "attempt": self.folder.manifest["attempts"][-1]["n"],
            "t": round(now - self._start, 3),
            **_episode_metrics(join_episodes(self._since)),
            **{name: total / count for name, (total, count) in self._metrics.items()},
            **found,
            "time/agent_steps_per_s": rate,
            "time/collect_s": self._collect_s,
            "time/learn_s": self._learn_s,
        }
        line = {k: v for k, v in line.items() if _is_finite(v)}
        self.folder.write_metrics(line)
        self._line = line
        self._last, self._last_steps = now, self.agent_steps
        self._collect_s = self._learn_s = 0.0
        self._since, self._metrics = [], {}
        if self._rules is not None:
            self._rules.see(line, self.agent_steps)
        return line

    def _stop(self) -> bool:
        """Whether to stop here; the folder is looked at every LOOK_S seconds."""
        now = time.perf_counter()
        if self._rules is not None:
            self._ended_by = self._rules.reason(now - self._start)
        if not self._interrupted and now - self._last_looked > LOOK_S:
            self._last_looked = now
            self._interrupted = self.folder.stop_requested()
        return self._interrupted or bool(self._ended_by)

    def _is_due(self, before: int) -> bool:
        """Whether a checkpoint is due after a round, by agent steps or by time.

        Those by agent steps are the scheduled ones. They alone count for `keep_every` and `best`,
        so that neither time nor an interruption has a say in what is kept.
        """
        self._on_schedule = self.agent_steps // self._every > before // self._every
        if self.agent_steps >= self.config.total_steps:
            return False  # the last one follows
        if self._on_schedule:
            return True
        if not self.loop.restores_environments:
            return False  # it would change the run, which only agent steps may decide
        minutes = self.config.checkpoint.minutes
        return minutes is not None and time.perf_counter() - self._last_saved > 60 * minutes

    def _is_best(self) -> bool:
        """Whether the chosen metric is better than at any checkpoint before."""
        wanted = self.config.checkpoint
        value = self._value()
        if value is None or not math.isfinite(value):
            return False
        sign = 1 if wanted.best_is == "max" else -1
        return self._best is None or sign * value > sign * self._best

    def _value(self) -> float | None:
        """Return the metric that decides which checkpoint is best, of the last line."""
        wanted = self.config.checkpoint.best
        return self._line.get(wanted) if wanted else self._evaluated()

    def _evaluated(self) -> float | None:
        """Return the score of an evaluation just now, or its return where it has no score."""
        return self._line.get("evaluation/score", self._line.get("evaluation/return"))

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the run needs to resume."""
        since = join_episodes(self._since) if self._since else None
        return {
            "loop": self.loop.state_dict(),
            "run": {
                "agent_steps": self.agent_steps,
                "decisions": self.decisions,
                "updates": self.updates,
                "episodes": self.episodes,
                "checkpoints": self._num_checkpoints,
                "best": self._best,
                "logs": self.folder.log_lengths(),
                "episodes_since": {} if since is None else {"env": since.env, **_columns(since)},
                "metrics_since": {name: list(pair) for name, pair in self._metrics.items()},
                "stop": self._rules.state_dict(time.perf_counter() - self._start)
                if self._rules
                else None,
            },
            "random": global_random_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken; what was recorded after it is cut off.

        Raises:
          UserError: the files of the run do not belong to the checkpoint.
        """
        run = state["run"]
        if run["logs"] is not None:
            self.folder.check_logs(run["logs"])
        self.loop.load_state_dict(state["loop"])
        if run["logs"] is not None:
            self.folder.cut_logs(run["logs"])
        self.agent_steps, self.updates = run["agent_steps"], run["updates"]
        self.episodes = run["episodes"]
        self.decisions = run.get("decisions", self.agent_steps)  # once they were not told apart
        self._num_checkpoints, self._best = run["checkpoints"], run["best"]
        if since := dict(run["episodes_since"]):
            env, returns, length = (since.pop(name) for name in ("env", "return", "length"))
            self._since = [EpisodeBatch(env, returns, length, since)]
        self._metrics = {
            name: (float(total), int(count))
            for name, (total, count) in run.get("metrics_since", {}).items()
        }
        if self._rules is not None and run.get("stop") is not None:
            self._rules.load_state_dict(run["stop"])
        self._random = state.get("random")  # absent from the oldest format

    def save_checkpoint(self, *, wait: bool = True, judged: bool = False) -> None:
        """Write a checkpoint; its part `actor` alone is enough to act.

        Args:
          wait: return when it is on disk; else it is written while training continues.
          judged: the agent was evaluated just now, so that this checkpoint may be the best.

        Raises:
          RunError: the weights are not finite, or this checkpoint or the one before cannot be
            written.
        """
        self.checkpoints.wait()
        if not self.loop.restores_environments:
            self.loop.reset_environments()
        weights = self._packed()
        for name, weight in weights.items():
            if np.issubdtype(weight.dtype, np.inexact) and not np.isfinite(weight).all():
                raise RunError(
                    f"weight {name!r} is not finite at step {self.agent_steps:,}; the checkpoints "
                    "before are kept, and none is written of this state."
                )
        scheduled, self._on_schedule = self._on_schedule, False
        self._num_checkpoints += scheduled
        finished = self.agent_steps >= self.config.total_steps
        best = (scheduled or finished or judged) and self._is_best()
        if best:
            self._best = self._value()
        if artifacts := self.loop.artifacts():
            write_artifacts(self.folder.path / "artifacts" / str(self.agent_steps), artifacts)
        self.checkpoints.save(
            self.agent_steps,
            {"actor": weights, **self.state_dict()},
            {
                "run_id": self.folder.manifest["run_id"],
                "config_hash": self.folder.manifest["config_hash"],
            },
            number=self._num_checkpoints if scheduled else None,
            best=best,
            flush=[self.folder.path / name for name in LOGS],
            wait=wait,
            written=lambda step: self.folder.update_manifest(checkpoint_step=step),
        )
        self._last_saved = time.perf_counter()

    def _packed(self) -> Weights:
        """Return what is needed to act as the agent now would."""
        return pack(self.loop.weights(), self.loop.wrapper_statistics())

    def _save_in_need(self) -> None:
        try:
            self.save_checkpoint()
        except RunError as error:
            warnings.warn(str(error), stacklevel=2)

    def _kept(self) -> str:
        with suppress(RunError):
            self.checkpoints.wait()
        last = (self.checkpoints.names() or ["none yet"])[-1]
        return f"The last checkpoint is {last}."

    def _unwritable(self, error: OSError) -> RunError:
        """Say what the run folder could not take; the manifest may not be written either."""
        failure = RunError(
            f"{self.folder.path}: cannot be written: {error}. {self._kept()} Make "
            f"room, then: palaestra resume {self.folder.path.name}"
        )
        with suppress(OSError):
            self._end("failed", str(failure))
        return failure

    def _end(self, status: str, reason: str = "") -> None:
        restored = self.loop.restores_environments
        self.folder.end_attempt(
            status,
            reason,
            env_state="restored" if restored else "reset_at_checkpoint",
            failures=[*self.folder.manifest["failures"], *self.loop.failures],
            wall_seconds=round(time.perf_counter() - self._start, 3),
            agent_steps=self.agent_steps,
            ended_by=self._ended_by,
        )

    def _open_trackers(self) -> list[Any]:
        from palaestra.runs.store.record import RunRecord
        from palaestra.runs.trackers import open_trackers

        def tell(message: str) -> None:
            self.folder.log(message)
            say(message)

        return list(open_trackers(self.config.all_trackers, RunRecord(self.folder.path), tell))

    def _progress(self) -> ProgressDisplay:
        return ProgressDisplay(
            f"train {self.folder.manifest['run_id']}",
            self.config.total_steps,
            quiet=self.quiet,
            start=self.agent_steps,
            log=self.folder.log,
        )

    def _catch_signals(self) -> dict[int, Any]:
        def stop(number: int, frame: FrameType | None) -> None:
            if self._interrupted and number == signal.SIGINT:
                raise KeyboardInterrupt
            self._interrupted = True

        try:
            return {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not in the main thread: whoever owns it handles signals
            return {}


def _is_finite(value: Any) -> bool:
    """Whether it can stand in a line of metrics, which is JSON."""
    return not isinstance(value, float | np.floating) or math.isfinite(value)


def _note(line: dict[str, Any] | None) -> str:
    shown = ("rollout/regret", "rollout/return")
    name = next((n for n in shown if line and n in line), None)
    return f"{name.partition('/')[2]} {line[name]:.2f}" if line and name else ""


def _columns(batch: EpisodeBatch) -> dict[str, np.ndarray]:
    return {"return": batch.returns, "length": batch.length, **batch.sums}


def _episode_metrics(batch: EpisodeBatch) -> dict[str, float]:
    if not len(batch.env):
        return {"rollout/episodes": 0}
    means = {f"rollout/{name}": float(np.mean(x)) for name, x in _columns(batch).items()}
    return means | {"rollout/episodes": len(batch.env)}
