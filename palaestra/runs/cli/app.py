"""The command line: verbs over the other rooms; heavy imports happen inside the verbs."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from palaestra.errors import UserError, did_you_mean
from palaestra.registry import KINDS, Entry, registry
from palaestra.runs.cli.export import export
from palaestra.runs.cli.jobs import jobs, logs, status, stop, submit
from palaestra.runs.cli.kernels import kernels
from palaestra.runs.cli.trackers import track, ui

app = typer.Typer(
    name="palaestra",
    help="Train, evaluate and measure reinforcement-learning agents that have memory.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: palaestra train demo",
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        import palaestra

        print(palaestra.__version__)
        raise typer.Exit


@app.command("list")
def list_names(
    kind: Annotated[str | None, typer.Argument(help=f"One of: {', '.join(KINDS)}.")] = None,
    as_json: AsJson = False,
) -> None:
    """List what has a name: environments, policies, agents, suites, metrics, presets."""
    kinds = [_singular(kind)] if kind else list(KINDS)
    rows = {k: [_listed(entry) for entry in registry.entries(k).values()] for k in kinds}
    if as_json:
        print(json.dumps(rows))
        return
    for k, entries in rows.items():
        print(k)
        width = max((len(row["name"]) for row in entries), default=0)
        for row in entries:
            origin = "" if row["origin"] == "palaestra" else f"  [{row['origin']}]"
            print(f"  {row['name']:<{width}}  {row['error'] or row['summary']}{origin}")


def _listed(entry: Entry) -> dict[str, Any]:
    """Return a row of the list; a plug-in is imported, so that a broken one shows its error."""
    row = {"name": entry.name, "summary": entry.summary, "origin": entry.origin, "error": None}
    if entry.origin != "palaestra":
        try:
            row["summary"] = entry.summary or summary_of(entry.load())
        except UserError as error:
            row["error"] = f"broken: {error}"
    return row


def summary_of(thing: Any) -> str:
    """Return one line on a thing: its own description or meaning, or its docstring's first line."""
    if isinstance(thing, dict):
        return str(thing.get("description", ""))
    own = getattr(thing, "description", None) or getattr(thing, "meaning", None)
    text = own if isinstance(own, str) else getattr(thing, "__doc__", None) or ""
    return text.strip().partition("\n")[0]


@app.command()
def describe(
    kind: Annotated[str, typer.Argument(help=f"One of: {', '.join(KINDS)}.")],
    name: Annotated[str, typer.Argument(help="A name that `palaestra list KIND` shows.")],
    as_json: AsJson = False,
) -> None:
    """Show one thing: what it is, and its options with types, defaults and help."""
    from palaestra.runs.cli.describe import describe_entry, print_description

    description = describe_entry(registry.entry(_singular(kind), name))
    if as_json:
        print(json.dumps(description, default=str))
    else:
        print_description(description)


@app.command()
def train(
    source: Annotated[str, typer.Argument(metavar="PRESET|FILE", help="A preset or a .yaml file.")],
    override: Annotated[
        list[str] | None,
        typer.Option(
            "-o", "--override", help="key=value, as agent.learning_rate=1e-3; repeatable."
        ),
    ] = None,
    run_id: Annotated[
        str | None, typer.Option(help="Name of the run; by default it follows from the options.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The seed of everything.")] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Train this many seeds in parallel, with one report.")
    ] = 1,
    parallel: Annotated[
        int | None, typer.Option(min=1, help="Seeds at a time; by default as many as CPUs allow.")
    ] = None,
    resume: Annotated[
        str,
        typer.Option(help="Where the run exists: never (refuse), auto (resume) or must (resume)."),
    ] = "never",
    override_config: Annotated[
        bool,
        typer.Option("--override-config", help="Resume although the configuration has changed."),
    ] = False,
    workers: Annotated[
        int | None, typer.Option(help="Rollout workers in Ray; 0 collects in this process.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to join, as host:port; else Ray starts here.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and show the configuration; write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train an agent; then evaluate it and write a report where the preset says so."""
    from palaestra.runs.cli.verbs import check_resume, train_and_report
    from palaestra.runs.cli.verbs import dry_run as show
    from palaestra.runs.config import load_config

    mode = check_resume(resume)
    config = load_config(
        source,
        override or (),
        seed=seed,
        rollout__workers=workers,
        rollout__address=address,
    )
    if dry_run:
        show(config, run_id, as_json)
        return
    if seeds > 1:
        from palaestra.runs.sweeps.seeds import train_seeds

        code = train_seeds(
            config,
            seeds,
            run_id=run_id,
            resume=mode,
            override_config=override_config,
            parallel=parallel,
            as_json=as_json,
        )
    else:
        code = train_and_report(
            config, run_id, as_json, resume=mode, override_config=override_config
        )
    raise typer.Exit(code)


@app.command()
def resume(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run by id or path.")],
    override: Annotated[
        list[str] | None,
        typer.Option(
            "-o", "--override", help="Resume with another value, as total_steps=2e6; repeatable."
        ),
    ] = None,
    override_config: Annotated[
        bool,
        typer.Option("--override-config", help="Continue with a config.yaml that was changed."),
    ] = False,
    allow_plugin: Annotated[
        list[str] | None,
        typer.Option(help="Module that a run from elsewhere may import; repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Resume a run that was stopped or killed, exactly where its last checkpoint was made."""
    from palaestra.runs.cli.verbs import resume_run

    raise typer.Exit(
        resume_run(
            run,
            override or (),
            as_json,
            override_config=override_config,
            plugins=allow_plugin or (),
        )
    )


@app.command()
def evaluate(
    agent: Annotated[
        str,
        typer.Argument(
            metavar="AGENT|RUN|FOLDER",
            help="A baseline, a run by id or path, or an exported folder.",
        ),
    ],
    suite: Annotated[
        str | None, typer.Option(help="Suite by name; a run's own suite by default.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Evaluation seeds (default 5).")] = None,
    episodes: Annotated[
        int | None,
        typer.Option(min=1, help="Episodes of each task and seed (default: the suite's)."),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="Only this task of the suite; repeatable.")
    ] = None,
    mode: Annotated[
        str | None, typer.Option(help="sample or greedy (default: runs greedy, baselines sample).")
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="Checkpoint of a run by name, or best; the newest by default."),
    ] = None,
    allow_plugin: Annotated[
        list[str] | None,
        typer.Option(help="Module that an export or a run from elsewhere may import; repeatable."),
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("-o", "--override", help="Option of a baseline, as bonus=alpha."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate an agent on a suite: every episode stored, means with 95 % intervals."""
    from palaestra.runs.cli.verbs import evaluate_named

    evaluate_named(
        agent,
        suite,
        seeds=seeds,
        episodes=episodes,
        tasks=tuple(task or ()),
        mode=mode,
        checkpoint=checkpoint,
        plugins=allow_plugin or (),
        overrides=override or (),
        as_json=as_json,
    )


@app.command()
def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs by id or path.")],
    out: Annotated[Path | None, typer.Option(help="Where to write the page.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write one self-contained HTML page about one or more runs, and pictures beside it."""
    from palaestra.runs.report import write_report
    from palaestra.runs.store.record import RunRecord

    page = write_report([RunRecord.open(run).run() for run in runs], out)
    print(json.dumps({"report": str(page)}) if as_json else page)


def _singular(kind: str) -> str:
    """Return the kind that was meant; `list envs` is as good as `list env`."""
    singular = {"policies": "policy"}.get(kind, kind.removesuffix("s"))
    if singular not in KINDS:
        raise UserError(f"unknown kind {kind!r}: {did_you_mean(kind, KINDS)}")
    return singular


for verb in (submit, jobs, status, logs, stop, track, ui, export):
    app.command()(verb)
app.add_typer(kernels, name="kernels")
