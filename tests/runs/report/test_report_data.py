"""Reading run folders, and the curves and tables made of them."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_example import (
    AGENT,
    BASELINES,
    PLACE,
    STEPS,
    TASK,
    estimate,
    read_run,
    read_runs,
    summary_of,
    write_identity,
    write_json,
    write_lines,
    write_run,
)

from palaestra.envs.suites.file import TRAINING
from palaestra.errors import UserError
from palaestra.runs.report.build import check_given
from palaestra.runs.report.curves import Line, band, charts, levels, thin
from palaestra.runs.report.data import gather
from palaestra.runs.report.estimate import Estimate
from palaestra.runs.report.format import counted, duration, interval, listed, number
from palaestra.runs.report.groups import group_runs
from palaestra.runs.report.page import render
from palaestra.runs.report.provenance import commands
from palaestra.runs.report.read import Evaluated, Run
from palaestra.runs.report.tables import Column, Row, Table, compare, tables
from palaestra.runs.report.views import bandit, board, view_of


def test_band_of_equal_runs_has_zero_width_and_their_value() -> None:
    lines = [Line(str(i), [0, 10, 20], [1.0, 2.0, 4.0]) for i in range(5)]
    found = band(lines)
    assert found is not None
    assert found.x == [0, 10, 20]
    np.testing.assert_allclose(found.mean, [1, 2, 4])
    np.testing.assert_allclose(found.low, found.high, rtol=1e-12)


def test_band_lies_within_the_runs_and_around_their_mean() -> None:
    rng = np.random.default_rng(0)
    lines = [Line(str(i), list(range(30)), rng.normal(size=30).tolist()) for i in range(6)]
    found = band(lines)
    assert found is not None
    y = np.array([line.y for line in lines])
    np.testing.assert_allclose(found.mean, y.mean(0))
    assert (y.min(0) <= np.array(found.low)).all()
    assert (np.array(found.low) <= found.mean).all()
    assert (found.mean <= np.array(found.high)).all()
    assert (np.array(found.high) <= y.max(0)).all()


def test_band_is_the_same_every_time() -> None:
    rng = np.random.default_rng(1)
    lines = [Line(str(i), [0, 1], rng.normal(size=2).tolist()) for i in range(4)]
    assert band(lines) == band(lines)


def test_band_covers_only_the_steps_that_all_runs_reached() -> None:
    found = band([Line("a", [0, 5, 10], [0, 5, 10]), Line("b", [5, 15], [5, 15])])
    assert found is not None
    assert found.x == [5, 10]
    assert found.mean == [5, 10]
    assert band([Line("a", [0, 1], [0, 1]), Line("b", [5, 6], [0, 1])]) is None


def test_thinning_keeps_the_mean_and_short_lines_as_they_are() -> None:
    short = Line("a", [0, 1], [2, 3])
    assert thin(short) is short
    long = Line("a", list(range(1200)), [float(i % 7) for i in range(1200)])
    thinned = thin(long, 600)
    assert len(thinned.x) == 600
    assert np.mean(thinned.y) == pytest.approx(np.mean(long.y))


def test_runs_that_differ_in_the_seed_alone_are_one_group(tmp_path: Path) -> None:
    same = [write_run(tmp_path, seed) for seed in range(2)]
    other = write_run(tmp_path, 0, "another")
    groups = group_runs(read_runs([*same, other]))
    assert [(group.label, group.seeds) for group in groups] == [
        ("meta-bandit", [0, 1]),
        ("another", [0]),
    ]


def test_charts_show_known_metrics_first_and_a_band_for_several_runs(tmp_path: Path) -> None:
    runs = read_runs([write_run(tmp_path, seed) for seed in range(2)])
    found = charts(group_runs(runs))
    assert [chart.metric for chart in found[:2]] == ["rollout/return", "rollout/regret"]
    (series,) = found[0].series
    assert len(series.lines) == 2
    assert series.band is not None
    assert series.lines[0].y == [row["rollout/return"] for row in runs[0].metrics]


def test_returns_come_from_the_episodes_where_metrics_lack_them(tmp_path: Path) -> None:
    write_identity(tmp_path, "run", "run", 0)
    write_lines(
        tmp_path / "episodes.jsonl", [{"agent_steps": 9, "return": [1.0, 3.0], "env": [0, 1]}]
    )
    run = read_run(tmp_path)
    (chart,) = charts(group_runs([run]))
    assert (chart.metric, chart.series[0].lines[0].y) == ("rollout/return", [2.0])
    assert run.num_episodes == 2


def test_level_lines_stand_at_the_baselines_in_the_training_environment(
    tmp_path: Path,
) -> None:
    folder = write_run(tmp_path)
    groups = group_runs([read_run(folder)])
    found = {level.label: level.value for level in levels(groups)["rollout/regret"]}
    assert found["ucb"] == summary_of(folder, "ucb")["tasks"][0]["metrics"]["regret"]["mean"]
    assert found.keys() == set(BASELINES)


def test_level_lines_are_left_out_where_the_task_is_another_environment(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    for path in folder.glob("eval/*/*/summary.json"):
        summary = json.loads(path.read_text())
        summary["tasks"][0]["env_kwargs"] = {"K": 20}
        write_json(path, summary)
    found = levels(group_runs([read_run(folder)]))
    assert list(found) == ["eval/bandit/score (IQM)", "eval/bandit/return"]


def test_table_holds_what_was_found_and_is_sorted_by_regret(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    (table,) = tables(group_runs([read_run(folder)]))
    assert table.task == TASK
    by_agent = {row.agent: row.cells["regret"] for row in table.rows}
    stored = summary_of(folder, "random")["tasks"][0]["metrics"]["regret"]
    assert by_agent["random"].value == pytest.approx(stored["mean"])
    assert by_agent["random"].low == pytest.approx(stored["mean_low"])
    assert table.primary.key == "regret"
    regrets = [row.cells["regret"].value for row in table.rows]
    assert regrets == sorted(regrets)
    assert [row.trained for row in table.rows if row.agent == "ppo-gru"] == [True]
    assert next(c for c in table.columns if c.key == "coverage").better == ""


def test_several_runs_are_averaged_with_the_run_as_unit(tmp_path: Path) -> None:
    folders = [write_run(tmp_path, seed) for seed in range(3)]
    (table,) = tables(group_runs(read_runs(folders)))
    stored = [
        summary_of(folder, AGENT)["tasks"][0]["metrics"]["regret"]["mean"] for folder in folders
    ]
    figure = next(row for row in table.rows if row.trained).cells["regret"]
    assert figure.value == pytest.approx(np.mean(stored))
    assert min(stored) - 1e-9 <= figure.bounds[0] <= figure.value <= figure.bounds[1]
    assert figure.bounds[1] <= max(stored) + 1e-9
    assert [row.agent for row in table.rows].count("ucb") == 1


def test_what_an_evaluation_saves_is_read_as_it_was_found(tmp_path: Path) -> None:
    from palaestra.registry import registry
    from palaestra.runs.evaluation.evaluate import baseline, evaluate

    folder = write_run(tmp_path)
    shutil.rmtree(folder / "eval")
    evaluations = [
        evaluate(
            baseline(name),
            registry.get("suite", suite),
            seeds=2,
            episodes=2,
            tasks=[task],
            agent=agent,
            repetitions=100,
        )
        for suite, task, name, agent in (
            ("bandit", "bandit/k5-normal-1", "ucb", "ppo-gru"),
            ("bandit", "bandit/k5-normal-1", "random", "random"),
            ("tictactoe", "tictactoe/random-first", "random", "ppo-gru"),
        )
    ]
    for evaluation in evaluations:
        evaluation.save(folder / "eval" / f"{evaluation.suite}-4000" / evaluation.agent)
    report = gather([read_run(folder)])
    pulled, game = report.tables
    found = {row.agent: row.cells["regret"] for row in pulled.rows}
    for evaluation in evaluations[:2]:
        estimate = evaluation.tasks[0].metrics["regret"]
        assert found[evaluation.agent].value == estimate.mean.value
        assert found[evaluation.agent].bounds == estimate.mean.bounds
    assert {"win", "draw", "loss"} <= {column.key for column in game.columns}
    first = report.traces[0]
    assert view_of(first) is bandit
    assert list(first.records) == ["ppo-gru", "random"]
    assert any(view_of(trace) is board for trace in report.traces)


def test_few_seeds_are_warned_of(tmp_path: Path) -> None:
    runs = read_runs([write_run(tmp_path, seed) for seed in range(3)])
    assert any("3 training seeds" in notice for notice in gather(runs).notices)
    assert any("one seed" in notice for notice in gather(runs[:1]).notices)
    enough = read_runs([write_run(tmp_path / "more", seed) for seed in range(5)])
    assert gather(enough).notices == []


def test_agents_on_the_same_seeds_are_compared_by_their_paired_difference() -> None:
    hard = dict(enumerate([1.0, 9.0, 2.0, 8.0, 5.0]))
    better = {seed: value - 0.5 for seed, value in hard.items()}
    one, other = Estimate(4.5, 2, 7, better), Estimate(5.0, 2, 8, hard)
    found = compare(one, other, "lower")
    assert (found.side, found.difference) == ("better", Estimate(-0.5, -0.5, -0.5))
    assert compare(one, other, "higher").side == "worse"
    assert compare(Estimate(4.5, 2, 7), Estimate(5.0, 2, 8), "lower").side == "equal"
    apart = compare(Estimate(1.0, 0, 2), Estimate(5.0, 3, 8), "lower")
    assert (apart.side, apart.difference) == ("better", None)


def table_of(**returns: Estimate) -> Table:
    rows = [Row(agent, agent == "own", {"return": cell}) for agent, cell in returns.items()]
    return Table("t", "s", "", [Column("return", "Return", "", "higher")], rows)


def test_the_best_of_a_column_is_marked_only_where_it_is_better_than_every_other() -> None:
    table = table_of(own=Estimate(5, 4, 6), far=Estimate(1, 0, 2), near=Estimate(4.5, 3, 5))
    assert table.best(table.primary) is None
    table = table_of(own=Estimate(5, 4, 6), far=Estimate(1, 0, 2), near=Estimate(3, 2, 3.5))
    assert table.best(table.primary) is table.rows[0]
    table.rows.reverse()
    assert table.best(table.primary) is table.rows[-1]
    alone = table_of(own=Estimate(5, 4, 6))
    assert alone.best(alone.primary) is None


def test_summary_names_agent_environment_figure_and_baselines(tmp_path: Path) -> None:
    said = gather([read_run(write_run(tmp_path))]).summary
    for part in ("ppo", "gru", "palaestra/GaussianBandit-v0", "4,000", "95 %", "random", "ucb"):
        assert part in said


def test_where_better_is_said_the_paired_difference_stands_with_its_interval(
    tmp_path: Path,
) -> None:
    folder = write_run(tmp_path)
    own, random = summary_of(folder, AGENT), summary_of(folder, "random")
    regret = dict(random["tasks"][0]["metrics"]["regret"])
    gaps = [-2.0, -1.5, -1.0, -1.5, -1.5]
    regret["by_seed"] = [x + gap for x, gap in zip(regret["by_seed"], gaps, strict=True)]
    own["tasks"][0]["metrics"]["regret"] = regret | {"mean": regret["mean"] - 1.5}
    write_json(folder / "eval" / PLACE / AGENT / "summary.json", own)
    report = gather([read_run(folder)])
    digits = report.tables[0].primary.digits
    better = report.summary.partition("better than ")[2]
    expected = number(regret["mean"], digits)
    gap = number(-1.5, digits + 1)
    assert f"random ({expected}; paired difference {gap} [" in better


def test_runs_with_nothing_but_identity_or_one_line_are_read(tmp_path: Path) -> None:
    write_identity(tmp_path, "bare", "bare", 0)
    bare = gather([read_run(tmp_path)])
    assert (bare.charts, bare.tables, bare.traces) == ([], [], [])
    assert "not been evaluated" in bare.summary
    write_lines(tmp_path / "metrics.jsonl", [{"agent_steps": 5, "rollout/return": 1.0}])
    assert len(gather([read_run(tmp_path)]).charts) == 1


def test_commands_repeat_training_and_every_evaluation_that_it_does_not_include(
    tmp_path: Path,
) -> None:
    folder = write_run(tmp_path)
    name = folder.name
    checkout, train = commands(read_run(folder))
    assert checkout == "git checkout 4f2a9c1d7be0"
    assert train == f"palaestra train runs/{name}/config.yaml --run-id {name}-again"
    other = {**summary_of(folder, AGENT), "suite": "grid"}
    write_json(folder / "eval" / "grid-4000" / "summary.json", other)
    assert commands(read_run(folder))[2:] == [
        f"palaestra evaluate {name}-again --suite grid --seeds 5 --mode sample",
        f"palaestra report {name}-again",
    ]


def test_unfinished_runs_are_noted(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    write_json(folder / "manifest.json", {**manifest, "status": "stopped"})
    assert any("stopped" in notice for notice in gather([read_run(folder)]).notices)


def test_no_run_and_the_same_run_twice_are_refused(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path))
    with pytest.raises(UserError, match="given twice"):
        check_given([run, run])
    with pytest.raises(UserError, match="no run was given"):
        check_given([])


def in_env(run: Run, **changes: Any) -> Run:
    """Return a run of another environment."""
    env = {**run.config["env"], **changes}
    return replace(run, config={**run.config, "env": env}, manifest={**run.manifest, "env": env})


def test_runs_on_different_environments_share_no_axis(tmp_path: Path) -> None:
    own, other = read_runs([write_run(tmp_path), write_run(tmp_path, experiment="other")])
    apart = [own, in_env(other, options={"K": 20})]
    found = [c for c in charts(group_runs(apart)) if c.metric == "rollout/regret"]
    assert [[series.label for series in chart.series] for chart in found] == [
        ["meta-bandit"],
        ["other"],
    ]
    assert len({chart.title for chart in found}) == 2
    (chart,) = (c for c in charts(group_runs([own, other])) if c.metric == "rollout/regret")
    assert len(chart.series) == 2


def test_level_lines_belong_to_the_environment_of_their_task(tmp_path: Path) -> None:
    own, other = read_runs([write_run(tmp_path), write_run(tmp_path, experiment="other")])
    apart = [own, in_env(other, id="palaestra/BernoulliBandit-v0")]
    found = [c for c in charts(group_runs(apart)) if c.metric == "rollout/regret"]
    assert [bool(chart.levels) for chart in found] == [True, False]


def test_evaluations_after_several_steps_are_a_curve_with_their_interval(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    last = summary_of(folder, AGENT)
    stored = [{"value": v, "low": v - 0.1, "high": v + 0.1} for v in (0.2, 0.6)]
    for step, iqm in zip((1000, 2000), stored, strict=True):
        aggregate = {**last["aggregate"], "iqm": iqm}
        place = folder / "eval" / f"bandit-{step}" / AGENT
        write_json(place / "summary.json", {**last, "aggregate": aggregate})
    stored.append(last["aggregate"]["iqm"])
    found = {c.metric: c for c in charts(group_runs([read_run(folder)]))}
    chart = found["eval/bandit/score (IQM)"]
    assert chart.section == "evaluation"
    band = chart.series[0].band
    assert band is not None
    assert band.x == [1000, 2000, STEPS]
    assert band.mean == [estimate["value"] for estimate in stored]
    assert band.low == [estimate["low"] for estimate in stored]
    assert band.high == [estimate["high"] for estimate in stored]
    assert {level.label for level in chart.levels} == set(BASELINES)
    assert "eval/bandit/return" in found


def own_environment(seed: int, env_id: str, values: dict[int, float]) -> Run:
    """Return a run that was evaluated in its own environment, which knows no score."""
    unknown = {"mean": None, "iqm": None, "by_seed": [None] * 5}
    evaluated = []
    for step, value in values.items():
        metrics = {"return": estimate([value] * 5) | {"mean_low": value, "mean_high": value}}
        task = {"id": f"{TRAINING}/{env_id}", "env_id": env_id, "env_kwargs": {}, "episodes": 3}
        summary = {
            "mode": "greedy",
            "seeds": list(range(5)),
            "aggregate": {"iqm": {"value": None, "low": None, "high": None}},
            "tasks": [{**task, "score": unknown, "metrics": metrics}],
        }
        evaluated.append(Evaluated(TRAINING, step, AGENT, summary))
    config = {"seed": seed, "experiment": env_id, "env": {"id": env_id}, "evaluation": {"seeds": 5}}
    return Run(f"{env_id}-{seed}", config, {}, evaluated=evaluated, agent=AGENT, steps=STEPS)


def test_in_a_runs_own_environment_the_return_is_shown_and_no_score() -> None:
    run = own_environment(0, "Cart-v0", {1000: 3.0, STEPS: 7.0})
    report = gather([run])
    (table,) = report.tables
    assert table.primary.key == "return"
    assert not [column.key for column in table.columns if "score" in column.key]
    assert "score" not in report.summary.lower()
    assert "a return of 7" in report.summary
    (chart,) = report.charts
    assert (chart.metric, chart.section) == (f"eval/{TRAINING}/return", "evaluation")
    band = chart.series[0].band
    assert band is not None
    assert (band.x, band.mean) == ([1000, STEPS], [3.0, 7.0])
    assert commands(run) == ["palaestra train runs/Cart-v0-0/config.yaml --run-id Cart-v0-0-again"]


def test_the_own_environments_of_several_runs_are_never_pooled() -> None:
    values = {1000: 3.0, STEPS: 7.0}
    report = gather([own_environment(0, "Cart-v0", values), own_environment(0, "Hill-v0", values)])
    assert [table.task for table in report.tables] == [
        f"{TRAINING}/{i}-v0" for i in ("Cart", "Hill")
    ]
    assert [len(table.rows) for table in report.tables] == [1, 1]
    assert all(table.notes for table in report.tables)
    for name in ("Cart-v0", "Hill-v0"):
        assert f"On {TRAINING}/{name}, {name} reaches" in report.summary
        assert render(report).count(f"<h2>Evaluation on {TRAINING}/{name}</h2>") == 1


def test_a_run_evaluated_in_its_environment_later_is_repeated_without_naming_a_suite() -> None:
    run = own_environment(0, "Cart-v0", {STEPS: 7.0})
    again = commands(replace(run, config={**run.config, "evaluation": None}))
    assert again[1:] == [
        "palaestra evaluate Cart-v0-0-again --seeds 5 --mode greedy",
        "palaestra report Cart-v0-0-again",
    ]


def test_a_single_evaluation_is_no_curve(tmp_path: Path) -> None:
    found = charts(group_runs([read_run(write_run(tmp_path))]))
    assert not [chart for chart in found if chart.section == "evaluation"]


def test_words_read_well() -> None:
    assert [number(x) for x in (0.0, 12.345, -0.5, 1234.5, math.nan)] == [
        "0",
        "12.3",
        "\N{MINUS SIGN}0.500",
        "1,234",
        "\N{EN DASH}",
    ]
    assert number(-0.0001, 2) == "0.00"
    assert interval(1.0, 2.5, 1) == "[1.0, 2.5]"
    assert (interval(None, 2.5), interval(-0.25, 2)) == ("", "[\N{MINUS SIGN}0.25, 2.00]")
    assert [duration(s) for s in (3.21, 59, 125, 7260)] == [
        "3.2 s",
        "59 s",
        "2 min 5 s",
        "2 h 1 min",
    ]
    assert [listed(w) for w in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
    assert [counted(1, "seed"), counted(1200, "seed")] == ["1 seed", "1,200 seeds"]


def test_an_unknown_metric_of_a_plug_in_gets_its_own_column(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    path = folder / "eval" / PLACE / "ucb" / "summary.json"
    summary = json.loads(path.read_text())
    summary["tasks"][0]["metrics"]["curiosity"] = {"mean": 0.25, "iqm": 0.25}
    summary["metrics"]["curiosity"] = {"unit": "bits", "meaning": "what it says"}
    write_json(path, summary)
    (table,) = tables(group_runs([read_run(folder)]))
    assert table.columns[-1].key == "curiosity"
    assert table.columns[-1].meaning == "what it says"
    row: Row = next(row for row in table.rows if row.agent == "ucb")
    assert row.cells["curiosity"].value == 0.25
