"""The verbs about environments."""

import json
from typing import Annotated, Any

import typer

envs = typer.Typer(help="Environments: whether one can be trained on.", no_args_is_help=True)


@envs.callback()
def _group() -> None:
    """Keep `check` a word of its own as long as it is the only one."""


@envs.command()
def check(
    env: Annotated[
        str, typer.Argument(metavar="ID", help="As in configurations; module:id imports a module.")
    ],
    option: Annotated[
        list[str] | None,
        typer.Option("-o", "--option", help="Option of the environment, as size=7; repeatable."),
    ] = None,
    wrapper: Annotated[
        list[str] | None,
        typer.Option(help="Wrapper, innermost first: a name or {name: ..., option: ...}."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps that are played.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of the episodes and actions.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else.")
    ] = False,
) -> None:
    """Play an environment and name what is wrong; exit code 1 if it cannot be trained on."""
    from palaestra.envs.check import check_environment
    from palaestra.errors import UserError
    from palaestra.runs.config import import_plugins, parse_yaml

    import_plugins(())
    options: dict[str, Any] = {}
    for given in option or []:
        key, equals, value = given.partition("=")
        if not equals or not key:
            raise UserError(f"--option {given!r}: expected the form key=value, as size=7")
        options[key] = parse_yaml(value, f"--option {given!r}")
    wrappers = [parse_yaml(w, f"--wrapper {w!r}") for w in wrapper or []]
    report = check_environment(env, options, wrappers, steps, seed)
    if as_json:
        findings = [{"where": f.where, "text": f.text, "fatal": f.fatal} for f in report.findings]
        print(
            json.dumps({"env": env, "ok": report.ok, "facts": report.facts, "findings": findings})
        )
    else:
        print("\n".join(report.lines()))
    raise typer.Exit(0 if report.ok else 1)
