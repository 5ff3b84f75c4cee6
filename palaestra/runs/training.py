"""Training: rollouts feed the learner, the learner's weights go back, everything is recorded."""

import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from palaestra.agents.base import Learner
from palaestra.agents.loop import EpisodeBatch, join_episodes
from palaestra.errors import RunError, UserError
from palaestra.runs.checkpoint import save_checkpoint
from palaestra.runs.config import RunConfig, config_hash, default_run_id, dump_yaml
from palaestra.runs.folder import RUNS, RunFolder
from palaestra.runs.progress import ProgressDisplay
from palaestra.runs.rollouts import Rollout, Rollouts, build_agent, make_rollouts


class Trainer:
    """One run in progress: rollouts, learner and counters, and what is written of them.

    Args:
      config: the run's configuration.
      folder: where the run is recorded.
      learner, rollouts: its two ends.
      quiet: show no progress.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        learner: Learner,
        rollouts: Rollouts,
        *,
        quiet: bool = False,
    ) -> None:
        self.config = config
        self.folder = folder
        self.learner = learner
        self.rollouts = rollouts
        self.quiet = quiet
        self.agent_steps = self.updates = self.episodes = 0
        self._episodes: list[EpisodeBatch] = []  # since the last line of metrics
        self._collect_s = self._learn_s = 0.0
        self._interrupted = False

    def run(self) -> str:
        """Train until `total_steps` or an interrupt, and return the status of the run.

        Ctrl-C and SIGTERM end the loop after the current update, with a checkpoint; a second
        Ctrl-C ends the process at once.
        """
        self.folder.begin_attempt(self.agent_steps)
        self._start = self._last = time.perf_counter()
        self._last_steps = self.agent_steps
        handlers = self._catch_signals()
        tensorboard = self._tensorboard()
        try:
            with self._progress() as progress:
                while self.agent_steps < self.config.total_steps and not self._interrupted:
                    metrics, steps = self._iterate()
                    line = self._record(metrics)
                    if tensorboard is not None and line is not None:
                        tensorboard.log(line, self.agent_steps)
                    progress.advance(steps, self._note(line))
            self.save_checkpoint()
            status = "stopped" if self._interrupted else "succeeded"
            self._end(status)
            return status
        except RunError as error:
            # Workers failed between two updates: learner and counters are whole.
            self.save_checkpoint()
            self._end("failed", str(error))
            raise
        except BaseException as error:
            self._end("failed", f"{type(error).__name__}: {error}")
            raise
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            if tensorboard is not None:
                tensorboard.close()
            self.rollouts.close()

    def _iterate(self) -> tuple[dict[str, float], int]:
        """Collect and learn once; return the learner's metrics and the agent steps taken."""
        start = time.perf_counter()
        rollouts = self.rollouts.collect(self.learner.weights(), self.updates)
        collected = time.perf_counter()
        metrics = self.learner.update([rollout.fragment for rollout in rollouts])
        self._collect_s += collected - start
        self._learn_s += time.perf_counter() - collected
        steps = sum(rollout.fragment.steps for rollout in rollouts)
        self.agent_steps += steps
        self.updates += 1
        self._note_episodes(rollouts)
        return metrics, steps

    def _note_episodes(self, rollouts: list[Rollout]) -> None:
        batch = join_episodes([rollout.episodes for rollout in rollouts])
        self.episodes += len(batch.env)
        self._episodes.append(batch)
        if len(batch.env):
            columns = {"env": batch.env, "return": batch.returns, "length": batch.length}
            columns |= batch.sums
            self.folder.write_episodes(
                {"agent_steps": self.agent_steps}
                | {name: np.round(column, 6).tolist() for name, column in columns.items()}
            )

    def _record(self, metrics: dict[str, float]) -> dict[str, Any] | None:
        """Write a line of metrics where one is due, and return it."""
        due = self.updates % self.config.log_interval == 0
        if not due and self.agent_steps < self.config.total_steps:
            return None
        now = time.perf_counter()
        rate = (self.agent_steps - self._last_steps) / (now - self._last)
        line: dict[str, Any] = {
            "agent_steps": self.agent_steps,
            "frames": self.agent_steps,
            "updates": self.updates,
            "attempt": self.folder.manifest["attempts"][-1]["n"],
            "t": round(now - self._start, 3),
            **_episode_metrics(join_episodes(self._episodes)),
            **metrics,
            "time/agent_steps_per_s": rate,
            "time/collect_s": self._collect_s,
            "time/learn_s": self._learn_s,
        }
        line = {k: v for k, v in line.items() if not (isinstance(v, float) and math.isnan(v))}
        self.folder.write_metrics(line)
        self._last, self._last_steps = now, self.agent_steps
        self._collect_s = self._learn_s = 0.0
        self._episodes = []
        return line

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the run needs to go on."""
        return {
            "learner": self.learner.state_dict(),
            "rollouts": self.rollouts.state_dict(),
            "counters": {
                "agent_steps": self.agent_steps,
                "updates": self.updates,
                "episodes": self.episodes,
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken."""
        self.learner.load_state_dict(state["learner"])
        self.rollouts.load_state_dict(state["rollouts"])
        self.agent_steps = state["counters"]["agent_steps"]
        self.updates = state["counters"]["updates"]
        self.episodes = state["counters"]["episodes"]

    def save_checkpoint(self) -> None:
        """Write a checkpoint; its part `actor` alone is enough to act."""
        identity = {
            "run_id": self.folder.manifest["run_id"],
            "config_hash": config_hash(self.config),
        }
        parts = {"actor": self.learner.weights(), **self.state_dict()}
        save_checkpoint(self.folder.checkpoints, self.agent_steps, parts, identity)

    def _end(self, status: str, reason: str = "") -> None:
        self.folder.end_attempt(
            status,
            reason,
            failures=getattr(self.rollouts, "failures", []),
            wall_seconds=round(time.perf_counter() - self._start, 3),
            agent_steps=self.agent_steps,
        )

    def _tensorboard(self) -> Any:
        if not self.config.tensorboard:
            return None
        from palaestra.runs.tensorboard import TensorBoardLogger

        return TensorBoardLogger(self.folder.path / "tensorboard", dump_yaml(self.config))

    def _progress(self) -> ProgressDisplay:
        return ProgressDisplay(
            f"train {self.folder.manifest['run_id']}", self.config.total_steps, quiet=self.quiet
        )

    def _note(self, line: dict[str, Any] | None) -> str:
        shown = ("rollout/regret", "rollout/return")
        name = next((n for n in shown if line and n in line), None)
        return f"{name.partition('/')[2]} {line[name]:.2f}" if line and name else ""

    def _catch_signals(self) -> dict[int, Any]:
        def stop(number: int, frame: FrameType | None) -> None:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True

        try:
            return {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not in the main thread: whoever owns it handles signals
            return {}


def train(
    config: RunConfig,
    run_id: str | None = None,
    *,
    root: Path = RUNS,
    quiet: bool = False,
    begun: Callable[[RunFolder, RunConfig], None] = lambda folder, config: None,
) -> RunFolder:
    """Train a run from its beginning and return its folder; the manifest holds its status.

    Everything that the configuration can get wrong fails before the folder is made.

    Args:
      config: the resolved configuration.
      run_id: name of the run; None derives it from the configuration.
      root: where run folders are.
      quiet: show no progress.
      begun: called once the folder exists, before the first step.

    Raises:
      UserError: an environment, policy or agent that cannot be built, or a run id that exists.
    """
    import torch

    torch.set_num_threads(config.threads)
    run_id = run_id or default_run_id(config)
    RunFolder.check_free(run_id, root)
    learner = build_learner(config)
    rollouts = make_rollouts(config)
    try:
        folder = RunFolder.create(run_id, config, root)
    except UserError:
        rollouts.close()
        raise
    begun(folder, config)
    Trainer(config, folder, learner, rollouts, quiet=quiet).run()
    return folder


def build_learner(config: RunConfig) -> Learner:
    """Return the configured learner.

    Raises:
      UserError: the agent does not learn, or cannot take the environment's spaces.
    """
    observation_space, action_space = environment_spaces(config)
    learner = build_agent(config, observation_space, action_space).make_learner()
    if learner is None:
        raise UserError(
            f"agent.name: {config.agent['name']!r} does not learn; "
            "use `palaestra evaluate` with it instead."
        )
    return learner


def environment_spaces(config: RunConfig) -> tuple[Any, Any]:
    """Return observation and action space of one training environment."""
    from palaestra.envs import make_vec

    env = make_vec(config.env.id, 1, config.env.wrappers, **config.env.options)
    env.close()
    return env.single_observation_space, env.single_action_space


def _episode_metrics(batch: EpisodeBatch) -> dict[str, float]:
    if not len(batch.env):
        return {"rollout/episodes": 0}
    columns = {"return": batch.returns, "length": batch.length, **batch.sums}
    return {f"rollout/{name}": float(np.mean(column)) for name, column in columns.items()} | {
        "rollout/episodes": len(batch.env)
    }
