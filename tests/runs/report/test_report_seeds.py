"""Several seeds in one report: the training run is the unit, and each run stays in sight."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_example import several_tasks_summary, write_json, write_run
from rich.console import Console

from palaestra.runs.report.curves import Line, band, charts
from palaestra.runs.report.data import gather
from palaestra.runs.report.groups import group_runs
from palaestra.runs.report.page import anchor, render
from palaestra.runs.report.provenance import final_return
from palaestra.runs.report.read import Run, read_runs
from palaestra.runs.report.tables import tables
from palaestra.runs.report.terminal import print_groups


def write_group(root: Path, scores: Sequence[Sequence[Sequence[float]]]) -> list[Path]:
    """Write one run for each entry of scores `[run][task][evaluation seed]`."""
    folders = [write_run(root, seed) for seed in range(len(scores))]
    for folder, of_run in zip(folders, scores, strict=True):
        shutil.rmtree(folder / "eval")
        summary = several_tasks_summary(of_run)
        write_json(folder / "eval" / "invented-200000" / "ppo-gru" / "summary.json", summary)
    return folders


def change_manifest(folder: Path, **values: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    write_json(folder / "manifest.json", {**manifest, **values})


def cut(folder: Path, lines: int) -> None:
    kept = (folder / "metrics.jsonl").read_text().splitlines()[:lines]
    (folder / "metrics.jsonl").write_text("\n".join(kept) + "\n")


def test_two_runs_of_constant_scores_have_the_interval_between_them(tmp_path: Path) -> None:
    # Means of two draws are a, (a + b) / 2 and b with probabilities 1/4, 1/2 and 1/4.
    (table,) = tables(group_runs(read_runs(write_group(tmp_path, [[[0.2] * 5], [[0.6] * 5]]))))
    figure = table.rows[0].cells["score"]
    assert (figure.value, figure.low, figure.high) == pytest.approx((0.4, 0.2, 0.6))
    assert table.rows[0].over == "2 training seeds"


def test_evaluation_seeds_are_averaged_before_runs_are_resampled(tmp_path: Path) -> None:
    spread = [[[0.0, 1.0, 0.0, 1.0]], [[1.0, 0.0, 1.0, 0.0]], [[0.5, 0.5, 0.5, 0.5]]]
    (table,) = tables(group_runs(read_runs(write_group(tmp_path, spread))))
    figure = table.rows[0].cells["score"]
    assert (figure.value, figure.low, figure.high) == (0.5, 0.5, 0.5)


def test_over_all_tasks_the_scores_of_runs_and_tasks_are_pooled(tmp_path: Path) -> None:
    # Scores 1 to 8 of 4 runs on 2 tasks: their IQM is 4.5, the mean of 3, 4, 5 and 6.
    scores = [[[run + 1.0], [run + 5.0]] for run in range(4)]
    overall, *by_task = tables(group_runs(read_runs(write_group(tmp_path, scores))))
    cells = overall.rows[0].cells
    assert cells["score_iqm"].value == pytest.approx(4.5)
    assert cells["score"].value == pytest.approx(4.5)
    assert [table.rows[0].cells["score"].value for table in by_task] == [2.5, 6.5]
    low, high = cells["score_iqm"].bounds
    assert 1 <= low < 4.5 < high <= 8
    # Each task keeps its share of a draw, so the mean cannot leave [(1 + 5) / 2, (4 + 8) / 2].
    low, high = cells["score"].bounds
    assert 3 <= low < 4.5 < high <= 6


def test_the_order_of_the_runs_changes_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folders = write_group(tmp_path, rng.random((4, 2, 3)).tolist())
    one, other = (tables(group_runs(read_runs(f))) for f in (folders, folders[::-1]))
    for a, b in zip(one, other, strict=True):
        for key, figure in a.rows[0].cells.items():
            assert figure.bounds == pytest.approx(b.rows[0].cells[key].bounds, rel=1e-12)


def test_each_seed_keeps_its_own_row_with_its_own_figures(tmp_path: Path) -> None:
    folders = write_group(tmp_path, [[[0.1, 0.3]], [[0.5, 0.9]]])
    (table,) = tables(group_runs(read_runs(folders)))
    rows = table.rows[0].by_run
    assert [row.agent for row in rows] == ["seed 0", "seed 1"]
    assert [row.cells["score"].value for row in rows] == pytest.approx([0.2, 0.7])
    assert [list(row.runs) for row in rows] == [[folder.name] for folder in folders]


def test_a_run_that_ended_early_is_drawn_but_does_not_end_the_mean(tmp_path: Path) -> None:
    folders = [write_run(tmp_path, seed) for seed in range(3)]
    change_manifest(folders[2], status="stopped")
    cut(folders[2], 10)
    (series,) = charts(group_runs(read_runs(folders)))[0].series
    assert [len(line.x) for line in series.lines] == [62, 62, 10]
    assert series.band is not None
    assert (len(series.band.x), series.band.over) == (62, "2 of 3 seeds")


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
    (folders[1] / "eval" / "bandit-200000").rename(folders[1] / "eval" / "bandit-100000")
    assert any("after 100,000 and 200,000 agent" in n for n in gather(read_runs(folders)).notices)


def test_the_final_return_is_the_mean_of_the_last_tenth() -> None:
    rows = [{"agent_steps": i, "rollout/return": float(i)} for i in range(40)]
    assert final_return(Run("run", {}, {}, metrics=rows)) == 37.5
    assert final_return(Run("run", {}, {}, metrics=rows[:3])) == 2.0
    assert final_return(Run("run", {}, {})) is None


@pytest.mark.parametrize("width", [80, 200])
def test_the_terminal_shows_interval_and_number_of_seeds_and_warns_of_few(
    tmp_path: Path, width: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = write_group(tmp_path, [[[0.2] * 5], [[0.6] * 5]])
    print_groups(folders, Console(width=width, force_terminal=True, no_color=True))
    printed = capsys.readouterr().out
    for part in ("0.400", "[0.200, 0.600]", "2 training seeds", "fewer than 5"):
        assert part in printed
