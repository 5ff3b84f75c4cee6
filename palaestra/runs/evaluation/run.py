"""Evaluating a trained run, and baselines beside it."""

import math
from pathlib import Path

import numpy as np

from palaestra.agents.base import Mode
from palaestra.experience.weights import Weights
from palaestra.runs.config import EnvConfig, EvaluationConfig, find_suite
from palaestra.runs.evaluation.actors import BaselineActors, RunActors
from palaestra.runs.evaluation.evaluate import Factory, evaluate
from palaestra.runs.evaluation.results import Evaluation
from palaestra.runs.progress import ProgressDisplay
from palaestra.runs.store.folder import RunFolder
from palaestra.runs.store.record import safe


def evaluate_run(folder: RunFolder, wanted: EvaluationConfig) -> list[Evaluation]:
    """Evaluate a run and the baselines beside it, and store what was found.

    Every agent plays the same instances with the same rewards.
    """
    actors = RunActors(folder)
    agents: list[tuple[str, Factory, Mode]] = [(actors.agent, actors, wanted.mode)]
    agents += [(name, BaselineActors(name), "sample") for name in wanted.baselines]
    found = []
    for name, factory, mode in agents:
        evaluation = evaluate_with_progress(name, factory, wanted, mode, actors.config.env)
        store(evaluation, actors)
        found.append(evaluation)
    return found


def evaluate_weights(folder: RunFolder, weights: Weights, step: int) -> dict[str, float]:
    """Evaluate a run in progress as its configuration asks, and return what goes to its metrics.

    Args:
      folder: the run.
      weights: of its actors, with the statistics of wrappers.
      step: agent steps taken.

    Returns:
      "evaluation/return", the mean return over tasks, and "evaluation/score" where it is defined.
    """
    actors = RunActors(folder, now=(weights, step))
    wanted = actors.config.evaluation
    assert wanted is not None
    evaluation = evaluate_with_progress(
        actors.agent, actors, wanted, wanted.mode, actors.config.env, quiet=True
    )
    store(evaluation, actors)
    returns = [result.metrics["return"].mean.value for result in evaluation.tasks]
    found = {
        "evaluation/return": float(np.mean(returns)),
        "evaluation/score": evaluation.aggregate["mean"].value,
    }
    return {name: value for name, value in found.items() if math.isfinite(value)}


def store(evaluation: Evaluation, actors: RunActors | None) -> Path:
    """Store an evaluation beside the run whose agent played, or as whose baseline an agent played.

    Exports and baselines alone have no run: theirs go to the folder `evaluations`.

    Returns:
      The folder, whose former content is replaced.
    """
    record = actors.record if actors else None
    if actors is None or record is None:
        folder = Path("evaluations") / safe(evaluation.suite) / safe(evaluation.agent)
        evaluation.save(folder, agent_steps=actors.step if actors else None)
        return folder
    folder = record.evaluation_folder(evaluation.suite, actors.step, evaluation.agent)
    own = evaluation.agent == actors.agent
    facts = {"agent_steps": actors.step, "config_hash": record.manifest["config_hash"]}
    evaluation.save(folder, **(facts if own else {}))
    return folder


def evaluate_with_progress(
    name: str,
    factory: Factory,
    wanted: EvaluationConfig,
    mode: Mode | None,
    env: EnvConfig | None = None,
    *,
    quiet: bool = False,
) -> Evaluation:
    """Evaluate one agent and show the progress.

    Args:
      name: what the agent is called.
      factory: of its actors.
      wanted: suite, tasks, seeds and episodes.
      mode: how it acts; None takes that of each task.
      env: the environment that a trained agent was trained on, with its wrappers.
      quiet: show nothing.
    """
    chosen = find_suite(wanted.suite, env)
    total = len(chosen.select(wanted.tasks)) * wanted.seeds
    trained = isinstance(factory, RunActors)
    with ProgressDisplay(
        f"evaluate {name}", total, "tasks x seeds", interval=5, quiet=quiet
    ) as progress:
        return evaluate(
            factory,
            chosen,
            seeds=range(wanted.seeds),
            episodes=wanted.episodes,
            mode=mode,
            tasks=wanted.tasks,
            wrappers=env.wrappers if trained and env else None,
            statistics_of_wrappers=factory.statistics if isinstance(factory, RunActors) else None,
            record=wanted.record.episodes,
            agent=name,
            progress=lambda done, _, task: progress.advance(done - progress.done, task),
        )
