"""What the verbs of the command line do, with their output."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, get_args

from rich.console import Console

from palaestra.agents.base import Mode
from palaestra.envs.wrappers.build import Wrappers
from palaestra.errors import UserError, did_you_mean
from palaestra.registry import registry
from palaestra.runs.actors import ReferenceActors, RunActors, label
from palaestra.runs.config import (
    EvaluationConfig,
    RunConfig,
    default_run_id,
    dump_yaml,
    load_config,
    parse_yaml,
)
from palaestra.runs.evaluation import Factory, evaluate
from palaestra.runs.folder import RUNS, RunFolder
from palaestra.runs.lock import RunLock
from palaestra.runs.messages import say
from palaestra.runs.progress import ProgressDisplay
from palaestra.runs.result_table import print_comparison
from palaestra.runs.results import Evaluation
from palaestra.runs.rollouts import build_agent
from palaestra.runs.training import (
    Resume,
    build_loop,
    environment_spaces,
    is_finished,
    train,
)


def dry_run(config: RunConfig, run_id: str | None, as_json: bool) -> None:
    """Print the resolved configuration and what it amounts to; write nothing."""
    RunFolder.check_free(run_id or default_run_id(config))
    agent = build_agent(config, *environment_spaces(config))
    learner = agent.make_learner()
    facts: dict[str, Any] = {"run_id": run_id or default_run_id(config)}
    if learner is not None:
        steps = config.env.num_envs * config.rollout.steps
        facts["updates"] = -(-config.total_steps // steps)
        facts["agent_steps_per_update"] = steps
        facts["weights"] = sum(x.size for x in learner.weights().values())
    else:
        build_loop(config).close()
    if as_json:
        print(json.dumps({**facts, "config": config.model_dump(mode="json")}))
        return
    print(dump_yaml(config), end="")
    for name, value in facts.items():
        print(f"# {name}: {value:,}" if isinstance(value, int) else f"# {name}: {value}")


def check_resume(given: str) -> Resume:
    """Return what --resume says.

    Raises:
      UserError: it is none of the accepted words.
    """
    if given not in get_args(Resume):
        raise UserError(f"--resume: {given!r} is not accepted: {', '.join(get_args(Resume))}.")
    return cast(Resume, given)


def resume_run(run: str, overrides: Sequence[str], as_json: bool) -> int:
    """Go on with a run, with other values where they are given; return the exit code."""
    folder = RunFolder.open(run)
    config = load_config(str(folder.path / "config.yaml"), overrides)
    return train_and_report(
        config,
        folder.path.name,
        as_json,
        root=folder.path.parent,
        resume="must",
        override_config=bool(overrides),
    )


def train_and_report(
    config: RunConfig,
    run_id: str | None,
    as_json: bool,
    *,
    root: Path = RUNS,
    resume: Resume = "never",
    override_config: bool = False,
) -> int:
    """Train, evaluate and report as the configuration asks; return the exit code."""
    done = _finished(config, run_id or default_run_id(config), root, resume)
    folder = train(
        config,
        run_id,
        root=root,
        resume=resume,
        override_config=override_config,
        begun=_introduce,
    )
    run_id, status = folder.manifest["run_id"], folder.manifest["status"]
    result = {"run_id": run_id, "status": status, "path": str(folder.path)}
    if status == "stopped":
        say(
            f"stopped at {folder.manifest['agent_steps']:,} agent steps; the checkpoint is saved. "
            f"Go on with: palaestra resume {run_id}"
        )
    elif done and (config.evaluation is None or _is_evaluated(folder, config.evaluation)):
        say(f"run {run_id} has succeeded before; there is nothing left to do")
    elif config.evaluation is not None:
        with RunLock(folder.path):
            print_comparison(evaluate_run(folder, config.evaluation), Console(stderr=as_json))
        from palaestra.runs.report import write_report

        result["report"] = str(write_report([folder.path]))
        if config.trackers:
            from palaestra.runs.trackers import replay

            replay(folder, config.trackers)  # which now also tells of the evaluation
        say(f"report: {result['report']}")
    if as_json:
        print(json.dumps(result))
    return 0 if status == "succeeded" else 130


def _finished(config: RunConfig, run_id: str, root: Path, resume: Resume) -> bool:
    """Whether the run to go on with has no training left."""
    if resume == "never" or not RunFolder.exists(run_id, root):
        return False
    return is_finished(RunFolder.open(root / run_id), config)


def _is_evaluated(folder: RunFolder, wanted: EvaluationConfig) -> bool:
    """Whether the evaluation at the end of the run, and its report, are there."""
    target = folder.path / "eval" / f"{wanted.suite}-{folder.manifest['agent_steps']}"
    names = [label(folder.config()), *wanted.baselines]
    files = [*(target / name / "summary.json" for name in names), folder.path / "report.html"]
    return all(file.is_file() for file in files)


def _introduce(folder: RunFolder, config: RunConfig, step: int) -> None:
    say(f"run {folder.manifest['run_id']}: {config.description or config.experiment}")
    if folder.manifest["attempts"]:
        say(f"  going on from step {step:,}" if step else "  no checkpoint yet: from the beginning")
    say(f"  {config.total_steps:,} agent steps of {config.env.id}; folder {folder.path}")


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
        evaluation = _evaluate(
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


def _evaluate(
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


def evaluate_named(
    agent: str,
    suite: str | None,
    *,
    seeds: int | None,
    episodes: int | None,
    tasks: tuple[str, ...],
    mode: str | None,
    checkpoint: str | None,
    plugins: Sequence[str],
    overrides: Sequence[str],
    as_json: bool,
) -> None:
    """Evaluate a reference agent, a run or an export; print one table or one JSON object.

    Raises:
      UserError: a name that is neither, an unknown suite or task, or a mode that is none.
    """
    if mode not in (None, "sample", "greedy"):
        raise UserError(f"--mode: {mode!r} is not accepted: sample or greedy.")
    trained = None if agent in registry.entries("agent") else _trained(agent, checkpoint, plugins)
    if checkpoint is not None and not (trained and trained.folder):
        raise UserError("--checkpoint: only runs have checkpoints.")
    if trained and overrides:
        raise UserError("-o: options belong to reference agents; a trained one keeps its own.")
    config = trained.config if trained else None
    own = config.evaluation if config else None
    name = suite or (own.suite if own else None)
    if name is None:
        raise UserError(f"--suite is needed; {did_you_mean('', registry.entries('suite'))}")
    if own is None or own.suite != name:
        own = EvaluationConfig(suite=name)
    factory: Factory = trained or ReferenceActors(agent, _options(overrides))
    title = label(config) if config else ",".join([agent, *overrides])
    place = Path("evaluations") / name
    if trained and trained.folder:
        place = trained.folder / "eval" / f"{name}-{trained.step}"
    evaluation = _evaluate(
        title,
        factory,
        name,
        seeds=seeds or own.seeds,
        episodes=episodes or own.episodes,
        mode=cast(Mode, mode) if mode else (own.mode if trained else None),
        tasks=tasks or own.tasks,
        wrappers=config.env.wrappers if config else None,
    )
    evaluation.save(place / title)
    if as_json:
        print(json.dumps(evaluation.to_json()))
    else:
        print_comparison([evaluation])
        say(f"every episode: {place / title / 'episodes.jsonl'}")


def _trained(name: str, checkpoint: str | None, plugins: Sequence[str]) -> "RunActors":
    """Return the actors of a run, or of an exported folder."""
    from palaestra.runs.export.layout import is_export

    if is_export(Path(name)):
        from palaestra.runs.export.read import ExportedActors

        return ExportedActors(Path(name), plugins)
    if plugins:
        raise UserError("--allow-plugin: only exported folders need it.")
    return RunActors(open_run(name), checkpoint)


def open_run(name: str) -> RunFolder:
    """Return a run by id or path; a name that is nothing lists near agents and runs.

    Raises:
      UserError: neither an agent nor a run.
    """
    try:
        return RunFolder.open(name)
    except UserError:
        known = [*registry.entries("agent"), *(p.parent.name for p in RUNS.glob("*/manifest.json"))]
        raise UserError(
            f"{name!r} is neither a reference agent nor a run: {did_you_mean(name, known)}"
        ) from None


def _options(overrides: Sequence[str]) -> dict[str, Any]:
    options = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise UserError(f"override {override!r}: expected the form key=value, as bonus=alpha")
        options[key] = parse_yaml(value, f"override {override!r}")
    return options
