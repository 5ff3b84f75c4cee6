"""Training a run: from its beginning, or on from its last checkpoint."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from palaestra.agents.base import Agent, Learner
from palaestra.agents.loop import Loop, TrainingEnvs
from palaestra.envs.close import safe_close
from palaestra.errors import UserError
from palaestra.runs.config import RunConfig, config_difference, default_run_id
from palaestra.runs.rollouts.build import build_agent, environment_spaces, make_envs
from palaestra.runs.rollouts.make import make_rollouts
from palaestra.runs.store.folder import LOGS, RUNS, RunFolder, check_run_id
from palaestra.runs.store.lock import RunLock
from palaestra.runs.store.random_state import seed_globals
from palaestra.runs.trackers import require_trackers
from palaestra.runs.training.loop import RolloutLoop
from palaestra.runs.training.trainer import Evaluator, Trainer

Resume = Literal["never", "auto", "must"]
"""What to do where the run exists: refuse; resume or start; resume or refuse."""


def train(
    config: RunConfig,
    run_id: str | None = None,
    *,
    root: Path = RUNS,
    resume: Resume = "never",
    override_config: bool = False,
    quiet: bool = False,
    evaluator: Evaluator | None = None,
    begun: Callable[[RunFolder, RunConfig, int], None] = lambda folder, config, step: None,
) -> RunFolder:
    """Train a run, from its beginning or on from its last checkpoint, and return its folder.

    The manifest holds its status. Everything that the configuration can get wrong fails before
    anything is written.

    Args:
      config: the resolved configuration.
      run_id: name of the run; None derives it from the configuration.
      root: where run folders are.
      resume: what to do where the run exists already.
      override_config: resume although the configuration differs from the run's.
      quiet: show no progress.
      evaluator: what evaluates during training, where the configuration has `evaluation.every`;
        `palaestra.runs.evaluation.run.evaluate_weights` does.
      begun: called with the agent steps taken so far, before the first or next step.

    Raises:
      UserError: an environment, policy or agent that cannot be built; a run that exists, or is
        owned by a live process, or has another configuration or no whole checkpoint.
    """
    import torch

    if config.evaluation is not None and config.evaluation.every and evaluator is None:
        raise UserError(
            f"evaluation.every: {config.evaluation.every} needs an evaluator; "
            "palaestra.runs.evaluation.run.evaluate_weights is accepted."
        )
    torch.set_num_threads(config.threads)
    run_id = run_id or default_run_id(config)
    folder = find_run(config, run_id, root, resume, override_config)
    if folder is not None and is_finished(folder, config):
        return folder
    require_trackers(config.all_trackers)
    seed_globals(config.seed)
    with _built(config) as loop:
        if folder is None:
            _check_repeatable(config, loop)
            folder = RunFolder.create(run_id, config, root)
        with RunLock(folder.path):
            trainer = Trainer(config, folder, loop, quiet=quiet, evaluator=evaluator)
            _continue(trainer, folder, config)
            begun(folder, config, trainer.agent_steps)
            trainer.run()
    return folder


def find_run(
    config: RunConfig, run_id: str, root: Path, resume: Resume, override_config: bool
) -> RunFolder | None:
    """Return the folder of the run to continue, or None where one has to be made.

    Raises:
      UserError: the run exists or does not, against what `resume` says, or differs.
    """
    if resume == "never":
        RunFolder.check_free(run_id, root)
        return None
    if resume == "auto" and not RunFolder.exists(run_id, root):
        RunFolder.check_free(run_id, root)
        return None
    folder = RunFolder.open(root / check_run_id(run_id), allow_plugins=config.plugins)
    folder.check_links()
    differences = config_difference(folder.trained_config(), config)
    if differences and not override_config:
        edited = config_difference(folder.trained_config(), folder.config()) == differences
        where = " (config.yaml was changed since)" if edited else ""
        raise UserError(
            f"run {run_id!r} has another configuration{where}:\n  "
            + "\n  ".join(differences)
            + "\nChoose another --run-id, or continue with the new values by --override-config."
        )
    return folder


def is_finished(folder: RunFolder, config: RunConfig) -> bool:
    """Whether the run has been trained as far as the configuration asks."""
    done = folder.manifest.get("agent_steps", 0) >= config.total_steps
    # A rule ended it, and nothing of the rules has changed since.
    ended = bool(folder.manifest.get("ended_by")) and folder.config().stop == config.stop
    return folder.manifest["status"] == "succeeded" and (done or ended)


@contextmanager
def _built(config: RunConfig) -> Iterator[Loop]:
    """Give the run's loop and close it, also where nothing came of it."""
    loop = build_loop(config)
    try:
        yield loop
    finally:
        loop.close()


def _continue(trainer: Trainer, folder: RunFolder, config: RunConfig) -> None:
    """Bring the trainer where the run's last whole checkpoint was made, if there is one.

    Raises:
      UserError: the checkpoint does not fit, or the run has had one and it is gone.
    """
    found = trainer.checkpoints.recover(folder.config_hashes)
    if found is None and folder.progress:
        raise UserError(
            f"{folder.checkpoints}: no checkpoint here, but the run has been at step "
            f"{folder.progress:,}. Put the folder back (is its disk mounted?), then continue; or "
            "start again under another --run-id. Nothing was changed."
        )
    if found is not None:
        name, state = found
        try:
            trainer.load_state_dict(state)
        except (KeyError, RuntimeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"{folder.checkpoints / name}: does not fit this configuration: {error}. "
                "Nothing was changed."
            ) from error
        if trainer.agent_steps < folder.progress:
            warnings.warn(
                f"{folder.checkpoints}: the newest checkpoint is {name}, but the run has been at "
                f"step {folder.progress:,}; what came after is computed again",
                stacklevel=2,
            )
    elif folder.manifest["attempts"]:
        folder.cut_logs(dict.fromkeys(LOGS, 0))  # killed before its first checkpoint
    differences = config_difference(folder.trained_config(), config)
    folder.adopt(config)
    if differences:
        folder.change_config(config, differences)


def build_loop(config: RunConfig) -> Loop:
    """Return the loop of the configured agent: its own, or rollouts and a learner.

    Raises:
      UserError: the agent does not learn, or cannot take the environment's spaces.
    """
    agent = build_agent(config, *environment_spaces(config))
    env = config.env
    task = TrainingEnvs(env.id, env.num_envs, env.wrappers, env.options, config.rollout.steps)
    loop = agent.make_loop(task)
    if loop is None:
        learner = _learner(agent, config)
        agent.open()
        try:
            return RolloutLoop(learner, make_rollouts(config), agent.close)
        except BaseException:
            agent.close()
            raise
    if config.rollout.workers:
        loop.close()
        raise UserError(
            f"rollout.workers: agent {config.agent['name']!r} collects by itself in this process; "
            f"0 is accepted, not {config.rollout.workers}."
        )
    if env.on_bad_transition != "stop":
        loop.close()
        raise UserError(
            f"env.on_bad_transition: agent {config.agent['name']!r} collects by itself; 'stop' is "
            f"accepted, not {env.on_bad_transition!r}."
        )
    if env.reset_at_checkpoint:
        loop.restores_environments = False
    return loop


def _check_repeatable(config: RunConfig, loop: Loop) -> None:
    """Refuse an environment whose run could not be resumed as it promises, before it is trained on.

    Environments of Palaestra give their state; others are played again, which two short replays
    try out.

    Raises:
      UserError: the same seed and actions lead elsewhere.
    """
    if not loop.restores_environments:
        return
    from palaestra.envs.check import check_determinism
    from palaestra.envs.recorded import RowsVectorEnv

    env = make_envs(config, 1)
    safe_close(env)
    if not isinstance(env.unwrapped, RowsVectorEnv):
        return
    for finding in check_determinism(config.env.id, config.env.options, config.env.wrappers):
        if (
            finding.where == "determinism"
        ):  # an environment that fails is told when it is trained on
            raise UserError(
                f"env.id: {config.env.id} cannot be resumed exactly: {finding.text}. "
                "env.reset_at_checkpoint=true starts new episodes at every checkpoint instead."
            )


def build_learner(config: RunConfig) -> Learner:
    """Return the configured learner.

    Raises:
      UserError: the agent does not learn, or cannot take the environment's spaces.
    """
    return _learner(build_agent(config, *environment_spaces(config)), config)


def _learner(agent: Agent, config: RunConfig) -> Learner:
    learner = agent.make_learner()
    if learner is None:
        raise UserError(
            f"agent.name: {config.agent['name']!r} does not learn; "
            "use `palaestra evaluate` with it instead."
        )
    return learner
