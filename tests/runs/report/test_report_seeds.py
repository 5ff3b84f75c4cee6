"""Several seeds in one report: the training run is the unit, and each run stays in sight."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_example import PLACE, read_runs, scored_run, write_json, write_run
from rich.console import Console

from palaestra.runs.report.curves import Line, band, charts
from palaestra.runs.report.data import gather
from palaestra.runs.report.groups import group_runs
from palaestra.runs.report.page import anchor, render
from palaestra.runs.report.provenance import final_return
from palaestra.runs.report.read import Run
from palaestra.runs.report.tables import tables
from palaestra.runs.report.terminal import print_groups


def group_of(scores: Sequence[Sequence[Sequence[float]]]) -> list[Run]:
    """One run for each entry of scores `[run][task][evaluation seed]`."""
    return [scored_run(seed, of_run) for seed, of_run in enumerate(scores)]


def change_manifest(folder: Path, **values: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    write_json(folder / "manifest.json", {**manifest, **values})


def cut(folder: Path, lines: int) -> None:
    kept = (folder / "metrics.jsonl").read_text().splitlines()[:lines]
    (folder / "metrics.jsonl").write_text("\n".join(kept) + "\n")


def test_two_runs_of_constant_scores_have_the_interval_between_them() -> None:
    # Means of two draws are a, (a + b) / 2 and b with probabilities 1/4, 1/2 and 1/4.
    (table,) = tables(group_runs(group_of([[[0.2] * 5], [[0.6] * 5]])))
    figure = table.rows[0].cells["score"]
    assert (figure.value, figure.low, figure.high) == pytest.approx((0.4, 0.2, 0.6))
    assert table.rows[0].over == "2 training seeds"


def test_evaluation_seeds_are_averaged_before_runs_are_resampled() -> None:
    spread = [[[0.0, 1.0, 0.0, 1.0]], [[1.0, 0.0, 1.0, 0.0]], [[0.5, 0.5, 0.5, 0.5]]]
    (table,) = tables(group_runs(group_of(spread)))
    figure = table.rows[0].cells["score"]
    assert (figure.value, figure.low, figure.high) == (0.5, 0.5, 0.5)


def test_over_all_tasks_the_scores_of_runs_and_tasks_are_pooled() -> None:
    # Scores 1 to 8 of 4 runs on 2 tasks: their IQM is 4.5, the mean of 3, 4, 5 and 6.
    scores = [[[run + 1.0], [run + 5.0]] for run in range(4)]
    overall, *by_task = tables(group_runs(group_of(scores)))
    cells = overall.rows[0].cells
    assert cells["score_iqm"].value == pytest.approx(4.5)
    assert cells["score"].value == pytest.approx(4.5)
    assert [table.rows[0].cells["score"].value for table in by_task] == [2.5, 6.5]
    low, high = cells["score_iqm"].bounds
    assert 1 <= low < 4.5 < high <= 8
    # Each task keeps its share of a draw, so the mean cannot leave [(1 + 5) / 2, (4 + 8) / 2].
    low, high = cells["score"].bounds
    assert 3 <= low < 4.5 < high <= 6


def test_the_order_of_the_runs_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    runs = group_of(rng.random((4, 2, 3)).tolist())
    one, other = (tables(group_runs(r)) for r in (runs, runs[::-1]))
    for a, b in zip(one, other, strict=True):
        for key, figure in a.rows[0].cells.items():
            assert figure.bounds == pytest.approx(b.rows[0].cells[key].bounds, rel=1e-12)


def test_each_seed_keeps_its_own_row_with_its_own_figures() -> None:
    runs = group_of([[[0.1, 0.3]], [[0.5, 0.9]]])
    (table,) = tables(group_runs(runs))
    rows = table.rows[0].by_run
    assert [row.agent for row in rows] == ["seed 0", "seed 1"]
    assert [row.cells["score"].value for row in rows] == pytest.approx([0.2, 0.7])
    assert [list(row.runs) for row in rows] == [[run.name] for run in runs]


def test_a_run_that_ended_early_is_drawn_but_does_not_end_the_mean(tmp_path: Path) -> None:
    folders = [write_run(tmp_path, seed) for seed in range(3)]
    change_manifest(folders[2], status="stopped")
    cut(folders[2], 5)
    (series,) = charts(group_runs(read_runs(folders)))[0].series
    assert [len(line.x) for line in series.lines] == [20, 20, 5]
    assert series.band is not None
    assert (len(series.band.x), series.band.over) == (20, "2 of 3 seeds")


def test_runs_that_agree_have_a_band_of_no_width_at_all() -> None:
    found = band([Line(str(i), [0, 1], [0.1, 50.0]) for i in range(5)])
    assert found is not None
    assert found.low == found.mean == found.high == [0.1, 50.0]


def test_how_each_run_stands_is_told_and_reachable(tmp_path: Path) -> None:
    folders = [write_run(tmp_path, seed) for seed in range(3)]
    reason = "RuntimeError: the emulator has crashed"
    change_manifest(folders[1], status="failed", attempts=[{"n": 1, "reason": reason}])
    shutil.rmtree(folders[1] / "eval")
    report = gather(read_runs(folders))
    notices = "\n".join(report.notices)
    assert f"{folders[1].name}: the run is failed ({reason})" in notices
    assert "played by 2 of 3 runs" in notices
    assert "mean curves are of the 2 runs" in notices
    assert "3 training seeds, 2 of them to the end" in report.summary
    page = render(report)
    for folder in folders:
        assert page.count(f'id="{anchor(folder.name)}"') == 1
        assert page.count(f'href="#{anchor(folder.name)}"') >= 1
    assert page.count("<span>failed</span>") == 1
    assert "ppo-gru by training seed" in page


def test_what_all_runs_share_is_said_once(tmp_path: Path) -> None:
    folders = [write_run(tmp_path, seed) for seed in range(5)]
    for folder in folders:
        change_manifest(folder, code_version={"git_sha": "4f2a", "dirty": True})
    assert gather(read_runs(folders)).notices == [
        "ppo-gru: the code had changes that no commit holds."
    ]


def test_runs_evaluated_after_different_steps_are_noted(tmp_path: Path) -> None:
    folders = [write_run(tmp_path, seed) for seed in range(2)]
    (folders[1] / "eval" / PLACE).rename(folders[1] / "eval" / "bandit-2000")
    assert any("after 2,000 and 4,000 agent" in n for n in gather(read_runs(folders)).notices)


def test_the_final_return_is_the_mean_of_the_last_tenth() -> None:
    rows = [{"agent_steps": i, "rollout/return": float(i)} for i in range(40)]
    assert final_return(Run("run", {}, {}, metrics=rows)) == 37.5
    assert final_return(Run("run", {}, {}, metrics=rows[:3])) == 2.0
    assert final_return(Run("run", {}, {})) is None


@pytest.mark.parametrize("width", [80, 200])
def test_the_terminal_shows_interval_and_number_of_seeds_and_warns_of_few(
    width: int, capsys: pytest.CaptureFixture[str]
) -> None:
    print_groups(
        group_of([[[0.2] * 5], [[0.6] * 5]]),
        Console(width=width, force_terminal=True, no_color=True),
    )
    printed = capsys.readouterr().out
    for part in ("0.400", "[0.200, 0.600]", "2 training seeds", "fewer than 5"):
        assert part in printed
