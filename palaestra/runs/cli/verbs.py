"""What the verbs of the command line do, with their output."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, get_args

from rich.console import Console

from palaestra.agents.base import Mode
from palaestra.errors import UserError, did_you_mean
from palaestra.registry import registry
from palaestra.runs.config import (
    EvaluationConfig,
    RunConfig,
    config_difference,
    default_run_id,
    dump_yaml,
    load_config,
    parse_yaml,
)
from palaestra.runs.evaluation.actors import BaselineActors, RunActors
from palaestra.runs.evaluation.evaluate import Factory
from palaestra.runs.evaluation.run import (
    evaluate_run,
    evaluate_weights,
    evaluate_with_progress,
    store,
)
from palaestra.runs.evaluation.table import print_comparison
from palaestra.runs.progress import say
from palaestra.runs.rollouts.build import build_agent, environment_spaces
from palaestra.runs.store.folder import RUNS, RunFolder
from palaestra.runs.store.lock import RunLock
from palaestra.runs.store.record import RunRecord
from palaestra.runs.training.train import Resume, build_loop, train


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


def resume_run(
    run: str,
    overrides: Sequence[str],
    as_json: bool,
    *,
    override_config: bool = False,
    plugins: Sequence[str] = (),
) -> int:
    """Resume a run, with other values where they are given; return the exit code.

    Args:
      run: its id or path.
      overrides: "key=value" strings.
      as_json: print one JSON object.
      override_config: take a config.yaml that was changed since the run was trained.
      plugins: modules that the run may import although it was not made here.

    Raises:
      UserError: config.yaml was changed, or it imports what is not allowed.
    """
    folder = RunFolder.open(run, allow_plugins=plugins)
    edited = config_difference(folder.trained_config(), folder.config())
    if edited and not override_config:
        raise UserError(
            f"{folder.path / 'config.yaml'} was changed since the run was trained:\n  "
            + "\n  ".join(edited)
            + "\nChange it back, or continue with the new values by --override-config."
        )
    config = load_config(str(folder.path / "config.yaml"), overrides)
    return train_and_report(
        config,
        folder.path.name,
        as_json,
        root=folder.path.parent,
        resume="must",
        override_config=override_config or bool(overrides),
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
    done = _is_trained(config, run_id or default_run_id(config), root, resume)
    folder = train(
        config,
        run_id,
        root=root,
        resume=resume,
        override_config=override_config,
        evaluator=evaluate_weights,
        begun=_introduce,
    )
    record = RunRecord(folder.path)
    status = folder.manifest["status"]
    result = {"run_id": record.id, "status": status, "path": str(folder.path)}
    if status == "stopped":
        say(
            f"stopped at {record.steps:,} agent steps; the checkpoint is saved. "
            f"Resume with: palaestra resume {record.id}"
        )
    elif done and record.is_complete(config):
        say(f"run {record.id} has succeeded before; there is nothing left to do")
    elif config.evaluation is not None:
        result["report"] = str(_evaluate_and_report(folder, config, Console(stderr=as_json)))
        say(f"report: {result['report']}")
    if as_json:
        print(json.dumps(result))
    return 0 if status == "succeeded" else 130


def _is_trained(config: RunConfig, run_id: str, root: Path, resume: Resume) -> bool:
    """Whether the run to resume has no training left."""
    if resume == "never" or not RunFolder.exists(run_id, root):
        return False
    return RunRecord.open(root / run_id).is_trained(config)


def _evaluate_and_report(folder: RunFolder, config: RunConfig, console: Console) -> Path:
    """Evaluate where that is not done, then write the report and return its page."""
    from palaestra.runs.report import write_report
    from palaestra.runs.trackers import replay

    record, wanted = RunRecord(folder.path), config.evaluation
    assert wanted is not None
    if not record.is_evaluated(wanted):
        with RunLock(folder.path):
            print_comparison(evaluate_run(folder, wanted), console)
    page = write_report([record.run()])
    if config.trackers:
        replay(record, config.trackers)  # which now also tells of the evaluation
    return page


def _introduce(folder: RunFolder, config: RunConfig, step: int) -> None:
    say(f"run {folder.manifest['run_id']}: {config.description or config.experiment}")
    if folder.manifest["attempts"]:
        say(f"  resuming at step {step:,}" if step else "  no checkpoint yet: from the beginning")
    say(f"  {config.total_steps:,} agent steps of {config.env.id}; folder {folder.path}")


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
    """Evaluate a baseline, a run or an export; print one table or one JSON object.

    Raises:
      UserError: a name that is neither, an unknown suite or task, or a mode that is none.
    """
    if mode not in (None, "sample", "greedy"):
        raise UserError(f"--mode: {mode!r} is not accepted: sample or greedy.")
    trained = None if agent in registry.entries("agent") else _trained(agent, checkpoint, plugins)
    if checkpoint is not None and not (trained and trained.record):
        raise UserError("--checkpoint: only runs have checkpoints.")
    if trained and overrides:
        raise UserError("-o: options belong to baselines; a trained agent keeps its own.")
    config = trained.config if trained else None
    own = (config.evaluation if config else None) or EvaluationConfig()
    if suite is not None and suite != own.suite:
        own = EvaluationConfig(suite=suite)
    given = {"seeds": seeds, "episodes": episodes, "tasks": tasks, "mode": mode}
    wanted = own.model_copy(update={name: value for name, value in given.items() if value})
    factory: Factory = trained or BaselineActors(agent, _options(overrides))
    evaluation = evaluate_with_progress(
        trained.agent if trained else ",".join([agent, *overrides]),
        factory,
        wanted,
        cast(Mode, mode) if mode else (own.mode if trained else None),
        config.env if config else None,
    )
    place = store(evaluation, trained)
    if as_json:
        print(json.dumps(evaluation.to_json()))
    else:
        print_comparison([evaluation])
        say(f"every episode: {place / 'episodes.jsonl'}")


def _trained(name: str, checkpoint: str | None, plugins: Sequence[str]) -> "RunActors":
    """Return the actors of a run, or of an exported folder."""
    from palaestra.runs.export.layout import is_export

    if is_export(Path(name)):
        from palaestra.runs.export.read import ExportedActors

        return ExportedActors(Path(name), plugins)
    return RunActors(open_run(name, plugins), checkpoint)


def open_run(name: str, plugins: Sequence[str] = ()) -> RunFolder:
    """Return a run by id or path; a name that is nothing lists near agents and runs.

    Args:
      name: of the run, or its path.
      plugins: modules that the run may import although it was not made here.

    Raises:
      UserError: neither an agent nor a run.
    """
    try:
        return RunFolder.open(name, allow_plugins=plugins)
    except UserError as error:
        if (RUNS / name / "manifest.json").is_file() or (Path(name) / "manifest.json").is_file():
            raise error  # it is one, and something is wrong with it
        known = [*registry.entries("agent"), *RunRecord.names()]
        raise UserError(
            f"{name!r} is neither a baseline nor a run: {did_you_mean(name, known)}"
        ) from None


def _options(overrides: Sequence[str]) -> dict[str, Any]:
    options = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise UserError(f"override {override!r}: expected the form key=value, as bonus=alpha")
        options[key] = parse_yaml(value, f"override {override!r}")
    return options
