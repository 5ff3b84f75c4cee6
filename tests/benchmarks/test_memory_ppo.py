"""The memory benchmark: when a run counts as solved, what is kept."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import memory_ppo

    yield memory_ppo
    del sys.modules["memory_ppo"]


def curve(*values: float) -> list[tuple[int, float]]:
    return [(10 * (i + 1), value) for i, value in enumerate(values)]


def test_a_run_is_solved_after_five_good_updates_in_a_row(benchmark: ModuleType) -> None:
    good, bad = 0.95, 0.94
    assert benchmark.steps_to_solved(curve(*[good] * 4)) is None
    assert benchmark.steps_to_solved(curve(*[good] * 4, bad, *[good] * 4)) is None
    assert benchmark.steps_to_solved(curve(bad, *[good] * 6, bad)) == 60


def test_a_run_has_the_whole_budget_and_its_curve(benchmark: ModuleType) -> None:
    updates, steps = 3, 256 * 66
    run = benchmark.learn("gru", benchmark.configure("gru", 0, updates * steps))
    assert [at for at, _ in run["curve"]] == [steps, 2 * steps, 3 * steps]
    assert all(0 <= right <= 1 for right in (run["success"], *(y for _, y in run["curve"])))
    assert run["steps_to_solved"] is None


def test_only_what_the_raw_file_lacks_is_trained(benchmark: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    config = benchmark.configure("gru", 0, None)
    run = {"backbone": "gru", "seed": 0, "config": benchmark.config_hash(config)}
    other = {**run, "seed": 1, "config": "of another setting"}
    path.write_text("".join(json.dumps(x) + "\n" for x in (run, other)))
    found = [(b, c.seed) for b, c in benchmark.missing(["gru", "mlp"], 2, None, path)]
    assert found == [("mlp", 0), ("gru", 1), ("mlp", 1)]


@pytest.mark.parametrize("backbone", ["attention", "sliding-attention", "rat", "rat-swa"])
def test_what_reads_a_stretch_of_the_past_reaches_the_cue(
    benchmark: ModuleType, backbone: str
) -> None:
    from palaestra.policies.base import PolicySpec

    options = PolicySpec(backbone, benchmark.BACKBONES[backbone]).config()
    name = "window" if backbone == "sliding-attention" else "context"
    assert getattr(options, name) >= 66
