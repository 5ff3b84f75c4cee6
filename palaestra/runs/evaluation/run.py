"""Evaluating a trained run, and baselines beside it."""

from collections.abc import Sequence
from pathlib import Path

from palaestra.agents.base import Mode
from palaestra.envs.wrappers.build import Wrappers
from palaestra.registry import registry
from palaestra.runs.config import EvaluationConfig
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
        evaluation = evaluate_with_progress(
            name,
            factory,
            wanted.suite,
            seeds=wanted.seeds,
            episodes=wanted.episodes,
            mode=mode,
            tasks=wanted.tasks,
            wrappers=actors.config.env.wrappers if factory is actors else None,
        )
        store(evaluation, actors)
        found.append(evaluation)
    return found


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
    suite: str,
    *,
    seeds: int,
    episodes: int | None,
    mode: Mode | None,
    tasks: Sequence[str],
    wrappers: Wrappers | None = None,
) -> Evaluation:
    """Evaluate one agent and show the progress."""
    chosen = registry.get("suite", suite)
    total = len(chosen.select(tasks)) * seeds
    with ProgressDisplay(f"evaluate {name}", total, "tasks x seeds", interval=5) as progress:
        return evaluate(
            factory,
            chosen,
            seeds=range(seeds),
            episodes=episodes,
            mode=mode,
            tasks=tasks,
            wrappers=wrappers,
            agent=name,
            progress=lambda done, _, task: progress.advance(done - progress.done, task),
        )
