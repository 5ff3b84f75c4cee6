"""Evaluation of an agent on a suite: fresh environments, every episode kept, honest intervals.

    evaluation = evaluate(baseline("ucb"), registry.get("suite", "bandit"), seeds=5)
    evaluation.print_table()
    evaluation.save(Path("eval/ucb"))

Episode e of seed s is the same instance with the same rewards for every agent: comparisons are
paired. Evaluation and training environments draw from separate streams of the seed.
"""

import importlib.metadata
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import gymnasium

import palaestra
from palaestra.agents.base import Actor, Agent, Mode, make
from palaestra.envs import make_vec
from palaestra.envs.close import safe_close
from palaestra.envs.state import load_statistics, wrapper_statistics
from palaestra.envs.suites import Suite, Task
from palaestra.envs.wrappers.build import Wrappers
from palaestra.envs.wrappers.statistics import Statistics
from palaestra.errors import UserError
from palaestra.experience.episodes import Episodes
from palaestra.metrics import statistics
from palaestra.runs.evaluation.play import join_turns, play
from palaestra.runs.evaluation.results import Evaluation, TaskResult
from palaestra.runs.evaluation.scoring import (
    LEVEL,
    TRACE_KEYS,
    aggregate,
    episode_metrics,
    task_result,
    units,
)
from palaestra.runs.evaluation.table import print_comparison
from palaestra.seeding import Role, generator, integer

__all__ = ["Evaluation", "baseline", "evaluate", "fixed", "print_comparison"]

Factory = Callable[[gymnasium.Space[Any], gymnasium.Space[Any]], Actor]
"""(observation space, action space) -> actor; UserError says that the spaces do not fit."""

Progress = Callable[[int, int, str], None]
"""Called with (seeds of tasks done, of how many, task id)."""

MAX_ROWS = 1024
"""Episodes played at once; more are played in turns."""

ENOUGH_SEEDS = 5


def baseline(name: str, **options: Any) -> Factory:
    """Return the factory of a registered agent as it is first made, e.g. `baseline("ucb")`."""
    return lambda observation_space, action_space: make(
        name, observation_space, action_space, **options
    ).make_actor()


def fixed(
    actor: Actor, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any]
) -> Factory:
    """Return the factory of one (trained) actor, which fits the spaces that it was made for."""

    def factory(observation: gymnasium.Space[Any], action: gymnasium.Space[Any]) -> Actor:
        for kind, ours, theirs in (
            ("observation", observation_space, observation),
            ("action", action_space, action),
        ):
            if ours != theirs:
                raise UserError(f"{kind} space {theirs}: the agent was made for {ours}.")
        return actor

    return factory


def evaluate(
    actors: Agent | Factory,
    suite: Suite,
    *,
    seeds: int | Iterable[int],
    agent: str = "agent",
    episodes: int | None = None,
    mode: Mode | None = None,
    tasks: Sequence[str] | None = None,
    wrappers: Wrappers | None = None,
    statistics_of_wrappers: dict[str, Statistics] | None = None,
    record: int = 0,
    repetitions: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Play every task of `suite` whose spaces the agent can take.

    Args:
      actors: an agent, or a factory of actors, see `baseline` and `fixed`.
      suite: what is played.
      seeds: evaluation seeds, the unit of replication; n means 0 to n - 1.
      agent: what the agent is called.
      episodes: for each task and seed; None takes the task's number.
      mode: how the agent acts; None takes the task's mode.
      tasks: ids of the tasks to play; None plays all but the extra ones.
      wrappers: environment wrappers instead of the tasks'.
      statistics_of_wrappers: what normalising wrappers have gathered in training; they gather
        nothing more here.
      record: episodes of each task, of the first seed, whose observations are kept.
      repetitions: of the bootstrap; None takes 50,000 over seeds, 2,000 over the episodes of one.
      progress: told of every task and seed.

    Raises:
      UserError: no seed, an unknown task, or an agent that fits none of the tasks.
    """
    factory = _factory(actors)
    seeds = tuple(range(seeds) if isinstance(seeds, int) else seeds)
    chosen = suite.select(tasks)
    if not seeds:
        raise UserError("evaluation.seeds: no seed was given; one or more are accepted.")
    if repetitions is None:
        over_seeds = len(seeds) > 1
        repetitions = statistics.TABLE_REPETITIONS if over_seeds else statistics.CURVE_REPETITIONS
    found: list[TaskResult] = []
    refused: dict[str, str] = {}
    for number, task in enumerate(chosen):
        if wrappers is not None:
            task = replace(task, wrappers=tuple(wrappers))
        tell = _teller(progress, number, len(chosen), len(seeds), task)
        try:
            played = _play_task(
                factory,
                task,
                seeds,
                episodes or task.episodes,
                mode,
                tell,
                statistics_of_wrappers or {},
                record,
            )
        except _MisfitError as error:
            refused[task.id] = str(error)
            continue
        found.append(task_result(task, seeds, played, repetitions))
    if not found:
        task_id, reason = next(iter(refused.items()))
        raise UserError(f"{agent} fits no task of suite {suite.name}; {task_id}: {reason}")
    return Evaluation(
        agent=agent,
        suite=suite.name,
        suite_version=suite.version,
        protocol=suite.protocol,
        mode=mode or "/".join(sorted({result.task.policy_mode for result in found})),
        seeds=seeds,
        versions=_versions({result.task.env_id for result in found}),
        level=LEVEL,
        repetitions=repetitions,
        tasks=found,
        units=units(found),
        aggregate=aggregate(found, seeds, repetitions),
        not_applicable=refused,
        warnings=_warn(seeds),
    )


class _MisfitError(Exception):
    """The agent cannot take the spaces of a task."""


def _factory(actors: Agent | Factory) -> Factory:
    if isinstance(actors, Agent):
        return fixed(actors.make_actor(), actors.setup.observation_space, actors.setup.action_space)
    return actors


def _play_task(
    factory: Factory,
    task: Task,
    seeds: Sequence[int],
    episodes: int,
    mode: Mode | None,
    tell: Callable[[int], None],
    gathered: dict[str, Statistics],
    record: int,
) -> list[Episodes]:
    """Return the recorded episodes of each seed."""
    rows = min(episodes, MAX_ROWS)
    env = make_vec(task.env_id, rows, wrappers=task.wrappers, **task.env_kwargs)
    load_statistics(env, wrapper_statistics(env) | gathered)  # frozen
    stream = zlib.crc32(task.id.encode())  # of its own for each task, whatever else is played
    keys = sorted({key for metric in episode_metrics() for key in metric.needs} | set(TRACE_KEYS))
    played = []
    try:
        for number, seed in enumerate(seeds):
            try:
                actor = factory(env.single_observation_space, env.single_action_space)
            except UserError as error:
                raise _MisfitError(str(error)) from None
            rng = generator(seed, Role.EVAL_ACTING, stream)
            turns = [
                play(
                    env,
                    actor,
                    [integer(seed, Role.EVAL_ENV, stream, first + row) for row in range(rows)],
                    rng,
                    mode or task.policy_mode,
                    keys,
                    record if (number, first) == (0, 0) else 0,
                )
                for first in range(0, episodes, rows)
            ]
            played.append(join_turns(turns, episodes))
            tell(number + 1)
    finally:
        safe_close(env)
    return played


def _versions(env_ids: set[str]) -> dict[str, str]:
    """Return the versions that decide what was played."""
    packages = {name: importlib.metadata.version(name) for name in ("gymnasium", "numpy")}
    versions = {id: id.rpartition("-")[2] for id in sorted(env_ids)}
    return {"palaestra": palaestra.__version__, **packages, **versions}


def _warn(seeds: Sequence[int]) -> tuple[str, ...]:
    if len(seeds) == 1:
        return (
            "one seed: the intervals are over its episodes and say nothing about other seeds; "
            f"{ENOUGH_SEEDS} or more seeds are recommended.",
        )
    if len(seeds) < ENOUGH_SEEDS:
        return (
            f"{len(seeds)} seeds: bootstrap intervals of fewer than {ENOUGH_SEEDS} are too short "
            "(a nominal 95 % covers 88 % with 3).",
        )
    return ()


def _teller(
    progress: Progress | None, number: int, tasks: int, seeds: int, task: Task
) -> Callable[[int], None]:
    if progress is None:
        return lambda done: None
    return lambda done: progress(number * seeds + done, tasks * seeds, task.id)
