"""The verbs about sequence operators; torch is imported inside."""

import json
from typing import Annotated

import typer

kernels = typer.Typer(
    help="Sequence operators: which implementation runs on this machine.", no_args_is_help=True
)


@kernels.callback()
def _group() -> None:
    """Keep `check` a word of its own as long as it is the only one."""


@kernels.command()
def check(
    op: Annotated[
        list[str] | None, typer.Option(help="An operator; repeatable. By default all.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else.")
    ] = False,
) -> None:
    """Show what runs here and test it against the loop over tokens; exit code 1 if a test fails."""
    from palaestra.errors import UserError, did_you_mean
    from palaestra.kernels.verify import check as checks
    from palaestra.kernels.verify.cases import OPERATORS

    for name in op or []:
        if name not in OPERATORS:
            raise UserError(f"--op {name}: {did_you_mean(name, OPERATORS)}")
    rows = checks.check(op or OPERATORS)
    good = checks.passed(rows)
    if as_json:
        report = {"machine": checks.machine(), "rows": checks.as_json(rows), "passed": good}
        print(json.dumps(report))
    else:
        for name, value in checks.machine().items():
            print(f"{name:<18}  {'none' if value is None else value}")
        print()
        print("\n".join(checks.table(rows)))
        print(f"\n{_summary([row.status for row in rows])}")
    raise typer.Exit(0 if good else 1)


def _summary(found: list[str]) -> str:
    words = {"ok": "ok", "failed": "failed", "absent": "not on this machine"}
    return ", ".join(f"{found.count(s)} {word}" for s, word in words.items() if s in found)
