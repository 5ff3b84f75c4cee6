"""`palaestra kernels check`: what it finds, and what it shows where something is wrong."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from palaestra.errors import UserError
from palaestra.kernels.verify import accuracy, cases, check
from palaestra.kernels.verify.cases import CASES, OPERATORS, Forms, Size, forms, make_inputs
from palaestra.runs.cli.kernels import kernels


@pytest.fixture(autouse=True)
def no_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave Triton's slow interpreter to the operators' own tests."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def with_forms(monkeypatch: pytest.MonkeyPatch, change: Callable[[Forms], Forms]) -> None:
    monkeypatch.setattr(check, "forms", lambda op: change(forms(op)))


def rows_of(op: str) -> dict[tuple[str, str], check.Row]:
    return {(row.impl, row.dtype): row for row in check.check([op], "cpu")}


@pytest.mark.parametrize("op", OPERATORS)
def test_every_operator_passes_on_the_cpu(op: str) -> None:
    rows = check.check([op], "cpu")
    assert check.passed(rows), check.table(rows)
    tested = [row for row in rows if row.status == "ok"]
    assert {"reference", "step reference"} <= {row.impl for row in tested}
    assert all(row.error is not None and row.error <= row.bound for row in tested)


def test_auto_is_the_reference_on_the_cpu() -> None:
    chosen = [row.impl for row in check.check(["attention"], "cpu") if row.auto]
    assert chosen == ["reference"] * 3 + ["step reference"] * 2


def test_triton_without_a_gpu_is_absent_and_no_failure() -> None:
    rows = rows_of("attention")
    for row in (rows["triton", "-"], rows["step triton", "-"]):
        assert row.status == "absent"
        assert row.note


def test_a_choice_that_has_no_kernels_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check.runtime, "choose", lambda impl, device: "triton")
    monkeypatch.setattr(check, "find_spec", lambda name: None)
    row = rows_of("attention")["triton", "-"]
    assert (row.status, row.note) == ("failed", "this operator has no Triton kernels")


def test_sizes_for_a_gpu_keep_the_bounds_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy, "SIZES", accuracy.GPU_SIZES)
    assert check.passed(check.check(["delta"], "cpu"))


def test_a_reset_that_comes_one_step_late_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(run: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *, reset, **rest: run(reset=reset.roll(1, 1), **rest)

    with_forms(monkeypatch, lambda f: f._replace(chunk=late(f.chunk)))
    rows = rows_of("delta")
    assert rows["reference", "float64"].status == "failed"
    assert rows["reference", "bfloat16"].status == "failed"
    assert rows["step reference", "float64"].status == "ok"


def test_a_reset_that_the_step_form_ignores_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def deaf(run: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *, reset, **rest: run(reset=torch.zeros_like(reset), **rest)

    with_forms(monkeypatch, lambda f: f._replace(step=deaf(f.step)))
    assert rows_of("gla")["step reference", "float32"].status == "failed"


def test_a_gradient_that_is_cut_off_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(run: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *, k, **rest: run(k=k.detach(), **rest)

    with_forms(monkeypatch, lambda f: f._replace(chunk=cut(f.chunk)))
    row = rows_of("gla")["reference", "float64"]
    assert row.status == "failed"
    assert row.where.endswith("dk")


def test_an_output_that_is_not_finite_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(run: Callable[..., Any]) -> Callable[..., Any]:
        def chunk(**rest: Any) -> tuple[Tensor, Any]:
            o, state = run(**rest)
            return o * torch.nan, state

        return chunk

    with_forms(monkeypatch, lambda f: f._replace(chunk=broken(f.chunk)))
    rows = check.check(["gla"], "cpu")
    assert not check.passed(rows)
    json.loads(json.dumps(check.as_json(rows), allow_nan=False))


def test_an_operator_that_cannot_be_imported_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "palaestra.kernels.gla", None)
    (row,) = check.check(["gla"], "cpu")
    assert (row.status, row.impl) == ("failed", "-")
    assert "palaestra.kernels.gla" in row.note


def test_an_implementation_that_raises_is_a_row_with_its_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def raises(**rest: Any) -> tuple[Tensor, Any]:
        raise RuntimeError("out of\nshared memory")

    with_forms(monkeypatch, lambda f: f._replace(chunk=raises))
    row = rows_of("mesa")["reference", "float32"]
    assert (row.status, row.note) == ("failed", "RuntimeError: out of shared memory")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_inputs_are_the_same_for_the_same_seed(case: cases.Case) -> None:
    size, cpu = Size(2, 3, 2, 4), torch.device("cpu")
    one, two, other = (make_inputs(case, size, torch.bfloat16, cpu, seed) for seed in (0, 0, 1))
    for name, x in one.items():
        assert torch.equal(x, two[name])
        assert not torch.equal(x, other[name])
        assert x.dtype == (torch.float32 if name in ("g", "beta", "lamb") else torch.bfloat16)


def test_the_command_prints_machine_table_and_summary() -> None:
    result = CliRunner().invoke(kernels, ["check", "--op", "gru"])
    assert result.exit_code == 0
    assert f"torch               {torch.__version__}" in result.stdout
    assert "reference (auto)" in result.stdout
    assert result.stdout.endswith("5 ok\n")


def test_the_command_prints_one_json_object() -> None:
    result = CliRunner().invoke(kernels, ["check", "--op", "gru", "--op", "gla", "--json"])
    report = json.loads(result.stdout)
    assert report["passed"] is True
    assert {row["op"] for row in report["rows"]} == {"gru", "gla"}
    assert report["machine"]["torch"] == torch.__version__


def test_the_command_ends_with_1_where_a_test_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "palaestra.kernels.gla", None)
    result = CliRunner().invoke(kernels, ["check", "--op", "gla"])
    assert result.exit_code == 1
    assert "1 failed" in result.stdout


def test_an_unknown_operator_names_the_nearest() -> None:
    with pytest.raises(UserError, match="mean 'delta'"):
        CliRunner().invoke(kernels, ["check", "--op", "delt"], catch_exceptions=False)


def test_the_verbs_import_torch_only_when_run() -> None:
    code = "import sys, palaestra.runs.cli.kernels; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
