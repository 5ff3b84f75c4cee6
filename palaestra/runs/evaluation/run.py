"""Evaluating a trained run, and reference agents beside it."""

from collections.abc import Sequence

from palaestra.agents.base import Mode
from palaestra.envs.wrappers.build import Wrappers
from palaestra.registry import registry
from palaestra.runs.config import EvaluationConfig
from palaestra.runs.evaluation.actors import ReferenceActors, RunActors, label
from palaestra.runs.evaluation.evaluate import Factory, evaluate
from palaestra.runs.evaluation.results import Evaluation
from palaestra.runs.progress import ProgressDisplay
from palaestra.runs.store.folder import RunFolder


def evaluate_run(folder: RunFolder, wanted: EvaluationConfig) -> list[Evaluation]:
    """Evaluate a run and the reference agents beside it, and store what was found.

    Every agent plays the same instances with the same rewards.
    """
    config = folder.config()
    actors = RunActors(folder)
    target = folder.path / "eval" / f"{wanted.suite}-{actors.step}"
    agents: list[tuple[str, Factory, Mode]] = [(label(config), actors, wanted.mode)]
    agents += [(name, ReferenceActors(name), "sample") for name in wanted.baselines]
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
            wrappers=config.env.wrappers if isinstance(factory, RunActors) else None,
        )
        evaluation.save(target / name)
        found.append(evaluation)
    return found


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
