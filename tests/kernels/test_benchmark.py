"""The kernel benchmark, as far as a CPU can say: peers compute the same, tables say what is so."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from palaestra.kernels.verify import check
from palaestra.kernels.verify.cases import CASES, Case, Size, forms, make_inputs

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CPU, FLOAT = torch.device("cpu"), torch.float32
SMALL = Size(2, 24, 2, 8)


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in [name for name in sys.modules if name.startswith("kernel")]:
        del sys.modules[name]


def case_of(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def some_reset(size: Size = SMALL) -> Tensor:
    reset = torch.zeros(size.B, size.T, dtype=torch.bool)
    reset[0, [0, 7, 8]] = reset[1, [16]] = True
    return reset


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_packed_rows_and_bounds_say_what_the_mask_says(case: Case) -> None:
    from kernel_peers import pack

    inputs, reset = make_inputs(case, SMALL, torch.float64, CPU), some_reset()
    packed, bounds = pack(inputs, reset, case.timeless)
    assert bounds.tolist() == [0, 7, 8, 24, 40, 48]
    chunk, options = forms(case.op).chunk, case.options
    one = chunk(**packed, cu_seqlens=bounds, **options)[0]
    many = chunk(**inputs, reset=reset, **options)[0]
    torch.testing.assert_close(one.view_as(many), many, rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_attention_by_pytorch_is_our_attention() -> None:
    from kernel_peers import causal, flexible, masked, ours

    case = case_of("attention")
    inputs, reset = make_inputs(case, SMALL, FLOAT, CPU), some_reset()
    run = ours(case, "reference")
    torch.testing.assert_close(causal(inputs, None), run(inputs, None))
    torch.testing.assert_close(masked(inputs, reset), run(inputs, reset))
    torch.testing.assert_close(flexible(inputs, reset), run(inputs, reset))


def test_attention_to_a_cache_is_our_step_into_a_full_ring() -> None:
    from kernel_acting import acting, cached, one_step, some_state

    case, size = case_of("attention"), Size(2, 1, 2, 8)
    state, inputs = some_state(case, size, FLOAT, CPU), one_step(case, size, FLOAT, CPU)
    state.pos += state.window - 1  # so that the step's pair goes into the last slot
    o, _ = forms("attention").step(**inputs, state=state)
    torch.testing.assert_close(cached(state).run(inputs, None), o)
    assert all(len(c.run(inputs, None)) == size.B for c in acting(case, size, FLOAT, CPU))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_contender_on_the_cpu_is_measured(case: Case) -> None:
    from kernels import Group, group_table

    for section, size in (("cpu", SMALL), ("acting", Size(3, 1, 2, 8))):
        group = Group(section, case, size, CPU)
        group.prepare()
        group.measure(rounds=1)
        assert [row["note"] for row in group.rows] == [""] * len(group.rows)
        assert all(row["forward"]["median"] >= 0 for row in group.rows)
        assert all((row["both"] is None) == (section == "acting") for row in group.rows)
        assert all(row["difference"] < 1e-4 for row in group.rows if row["difference"] is not None)
        assert len({len(line) for line in group_table(group.rows, True)}) <= 2


def test_fla_is_a_row_that_says_that_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    import kernel_peers
    from kernels import Group, group_table

    case = case_of("gla per head")
    monkeypatch.setattr(kernel_peers, "find_spec", lambda name: None)
    monkeypatch.setattr(
        "kernels.contenders", lambda *_: [kernel_peers.fla(case), kernel_peers.Contender("x", fail)]
    )
    group = Group("rl", case, SMALL, CPU)
    group.prepare()
    group.measure(rounds=1)
    text = "\n".join(group_table(group.rows, True))
    assert "fla is not installed" in text
    assert "RuntimeError: no kernel image" in text


def fail(inputs: Any, reset: Any) -> Tensor:
    raise RuntimeError("no kernel image")


def test_every_name_of_fla_is_one_of_ours() -> None:
    import kernel_acting
    import kernel_peers

    names = {case.name for case in CASES}
    assert set(kernel_peers.FLA) <= names
    assert set(kernel_acting.FLA) == set(kernel_peers.FLA)


def timed(median: float, **more: Any) -> dict[str, Any]:
    rest = {"p20": median, "p80": median, "best": None, "graph": None, "peak_mib": None}
    return {"median": median, **rest, **more}


def row(contender: str, p: float, both: float | None, **more: Any) -> dict[str, Any]:
    found = {"forward": both and timed(both / 3), "both": both and timed(both)}
    return {"contender": contender, "p": p, **found, "difference": None, "note": "", **more}


def test_ratios_compare_rows_that_differ_in_one_thing() -> None:
    from kernel_table import ratio

    rows = [row("palaestra", 0, 2.0), row("palaestra", 0.1, 3.0), row("loop", 0.1, 12.0)]
    assert ratio(rows[2], rows, "contender", "palaestra") == 4
    assert ratio(rows[1], rows, "p", 0) == 1.5
    assert ratio(rows[2], rows, "p", 0) is None
    assert ratio(rows[0], rows, "contender", "palaestra") is None


def test_the_best_time_is_compared_where_there_is_one() -> None:
    from kernel_table import ratio

    rows = [row("palaestra", 0, 2.0), row("loop", 0, 8.0)]
    rows[0]["both"] = timed(5.0, best=1.0)
    assert ratio(rows[1], rows, "contender", "palaestra") == 8


def test_nothing_is_compared_where_the_operators_test_failed() -> None:
    from kernel_table import group_table

    rows = [row("palaestra", 0, 2.0), row("palaestra", 0.1, 3.0), row("loop", 0, 8.0)]
    assert sum(line.count("x") for line in group_table(rows, True)) == 2
    failed = group_table(rows, False)
    assert "8.00" in failed[3]
    assert "x" not in "".join(failed[1:])
    assert "failed" in failed[-1]


def test_graphs_and_memory_have_columns_on_a_gpu_alone() -> None:
    from kernel_table import group_table

    cpu = [row("palaestra", 0, 2.0)]
    gpu = [row("palaestra", 0, 2.0, forward=timed(0.1, graph=0.05, peak_mib=3.5))]
    assert "graph" not in group_table(cpu, True)[0]
    head, line = group_table(gpu, True)
    assert "graph f+b" in head
    assert "0.0500" in line


def test_registered_sizes_fit_what_is_measured() -> None:
    from kernel_shapes import DECODING, DEFAULTS, FOCUS, RESETS, SECTIONS, probabilities, sizes

    for case in CASES:
        assert sizes("cpu", case, "cpu") == (Size(64, 128, 4, 32),)
        assert max(size.B for size in sizes("acting", case, "cpu")) <= 1024
        assert all(size.T <= 1024 for size in sizes("rl", case, "cuda"))
    rat = case_of("rat")
    assert Size(2, 131_072, 16, 128) in sizes("llm", rat, "cuda")
    assert DECODING in sizes("acting", rat, "cuda")
    assert probabilities("rl", FOCUS) == RESETS
    assert {s for sections in DEFAULTS.values() for s in sections} == set(SECTIONS)


def test_least_bytes_are_those_of_the_states_and_of_one_reading() -> None:
    from kernel_shapes import acting_bytes, window_bytes

    assert window_bytes(Size(256, 128, 4, 64), 2) == 67_108_864
    assert acting_bytes(case_of("gla per head"), Size(4096, 1, 4, 64)) == 536_870_912
    assert acting_bytes(case_of("attention"), Size(4096, 1, 4, 64)) == 0


def test_hard_inputs_of_mesa_leave_everything_finite() -> None:
    from kernel_stress import STRESS, stress, stress_table

    rows = stress(Size(1, 64, 1, 16), FLOAT, CPU)
    assert len(rows) == len(STRESS)
    assert all(row["finite_outputs"] and row["finite_gradients"] for row in rows)
    assert "NOT FINITE" not in "".join(stress_table(rows))
    rows[0]["finite_outputs"] = False
    assert "NOT FINITE" in "".join(stress_table(rows))


def test_a_run_writes_its_text_and_its_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import kernels

    threads = torch.get_num_threads()
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(kernels, "sizes", lambda section, case, device: (SMALL,))
    out = tmp_path / "kernels-cpu"
    kernels.main(["--op", "gru", "--shapes", "cpu", "--rounds", "1", "--out", str(out)])
    torch.set_num_threads(threads)
    report = json.loads(Path(f"{out}.json").read_text())
    assert {row["contender"] for row in report["rows"]} >= {"palaestra", "torch.nn.GRU"}
    assert {row["status"] for row in report["self_tests"]} == {"ok"}
    assert Path(f"{out}.txt").read_text() == capsys.readouterr().out
    assert report["machine"]["threads"] == 1


def test_an_operator_whose_test_fails_is_timed_but_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import kernels

    bad = check.Row("gru", "reference", "cpu", "float32", True, "failed", 1.0, 1e-5)
    monkeypatch.setattr(kernels, "check", lambda ops, device: [bad])
    monkeypatch.setattr(kernels, "sizes", lambda section, case, device: (SMALL,))
    threads = torch.get_num_threads()
    kernels.main(["--op", "gru", "--shapes", "cpu", "--rounds", "1", "--out", str(tmp_path / "k")])
    torch.set_num_threads(threads)
    assert "no comparison" in capsys.readouterr().out


def test_sizes_for_a_gpu_are_refused_on_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    import kernels

    with pytest.raises(SystemExit):
        kernels.main(["--shapes", "llm"])
    assert "a CPU takes cpu, acting, stress" in capsys.readouterr().err


def test_a_gpu_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import kernels

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        kernels.main(["--device", "cuda"])
    assert "--device cuda: torch sees no GPU here; cpu is accepted." in capsys.readouterr().err
