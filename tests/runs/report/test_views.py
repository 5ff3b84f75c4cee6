"""Views: which one draws a trace, and what it shows."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from report_example import game_record

from palaestra.runs.report.views import Trace, bandit, board, grid_map, matrix, transcript, view_of

HOSTILE = '"><script>alert(1)</script>$x^$'


def pulls(actions: list[int], means: list[float]) -> dict[str, Any]:
    """An episode on a bandit whose arms pay exactly their means."""
    chosen = [means[arm] for arm in actions]
    return {
        "actions": actions,
        "rewards": chosen,
        "expected_reward": chosen,
        "regret": [max(means) - mean for mean in chosen],
    }


TRACES = {
    bandit: {HOSTILE: pulls([0, 1, 1], [1.0, 2.0])},
    board: {HOSTILE: game_record()},
    transcript: {HOSTILE: {"messages": [{"role": HOSTILE, "text": f"{HOSTILE}\n\nend"}]}},
    matrix: {"": {"matrix": np.array([[1.0, np.nan], [3.0, 2.0]]), "rows": [HOSTILE, "b"]}},
    grid_map: {"": {"grid": np.array([[1, 1, 1], [1, 0, 2]]), "positions": [(1, 1), (1, 2)]}},
}


@pytest.mark.parametrize("view", TRACES, ids=lambda view: view.__name__.rpartition(".")[2])
def test_each_kind_is_drawn_by_its_view_escaped_and_as_png(view: Any) -> None:
    trace = Trace(HOSTILE, TRACES[view])
    assert view_of(trace) is view
    html = str(view.html(trace))
    assert "<script" not in html
    with Image.open(BytesIO(view.png(trace))) as image:
        assert image.format == "PNG"
        assert len(image.convert("RGB").getcolors(1 << 24)) > 2
    assert view.png(trace) == view.png(trace)


def test_what_no_view_knows_is_not_drawn() -> None:
    assert view_of(Trace("t", {"a": {"actions": [0.5], "rewards": [1.0]}})) is None
    assert view_of(Trace("t", {})) is None


def test_an_agent_alone_that_never_finds_the_best_arm_is_nowhere_green() -> None:
    trace = Trace("t", {"stuck": pulls([0] * 50, [1.0, 4.0])})
    (shares,) = bandit.qualities(bandit.plays_of(trace))
    assert (shares == 0).all()
    assert "--share:0%" in bandit.html(trace)
    assert "dot" not in bandit.html(trace)


def test_the_best_arm_is_listed_with_its_mean_though_nobody_pulled_it() -> None:
    assert bandit.arms(Trace("t", {"stuck": pulls([0] * 3, [1.0, 4.0])})) == {
        "the best, never pulled": 4.0,
        "0": 1.0,
    }
    found = Trace("t", {"a": pulls([0], [1.0, 4.0, 2.0]), "b": pulls([1, 2], [1.0, 4.0, 2.0])})
    assert list(bandit.arms(found).items()) == [("1", 4.0), ("2", 2.0), ("0", 1.0)]


def test_arms_whose_means_change_are_not_listed() -> None:
    record = pulls([0, 0], [1.0, 4.0]) | {"expected_reward": [1.0, 2.0]}
    assert bandit.arms(Trace("t", {"a": record})) == {}


def test_quality_runs_from_the_farthest_arm_that_anybody_pulled_to_the_best() -> None:
    trace = Trace("t", {"a": pulls([0, 1, 2], [-1.0, 0.0, 1.0]), "b": pulls([1], [-1.0, 0.0, 1.0])})
    a, b = bandit.qualities(bandit.plays_of(trace))
    assert (a.tolist(), b.tolist()) == ([0.0, 0.5, 1.0], [0.5])


@pytest.mark.parametrize("steps", [3, 60, 5000])
def test_a_long_episode_is_drawn_to_its_end_in_cells_of_several_steps(steps: int) -> None:
    html = str(bandit.html(Trace("t", {"a": pulls([0, 1] * steps, [0.0, 1.0])})))
    assert html.count('class="hit') == min(2 * steps, bandit.MOST_CELLS)
    assert f"to {2 * steps}:" in html or f"step {2 * steps}:" in html


def test_a_game_has_every_move_of_both_sides_after_the_empty_board() -> None:
    found = board.positions(game_record())
    assert [sum(map(bool, b.squares)) for b in found] == [0, 1, 2, 3, 4, 5]
    assert found[-1].text == "agent: top right: XXX / .O. / .O."
    assert len(list(board.frames("game 0", game_record()))) == 6


def test_a_matrix_shows_its_numbers_and_labels() -> None:
    html = str(matrix.html(Trace("t", {"": {"matrix": [[0.25, 1.5]], "columns": ["x", "y"]}})))
    for part in (">x<", ">y<", ">0<", "0.25", "1.50", "--share:100%"):
        assert part in html


def test_a_map_shows_every_cell_and_the_path() -> None:
    html = str(grid_map.html(Trace("t", TRACES[grid_map])))
    assert html.count("<rect") == 6
    assert 'points="1.5,1.5 2.5,1.5 "' in html


def test_a_transcript_keeps_order_and_lines() -> None:
    messages = [{"role": "user", "text": "one\ntwo"}, {"role": "agent", "text": "three"}]
    html = str(transcript.html(Trace("t", {"a": {"messages": messages}})))
    assert html.index("one\ntwo") < html.index("three")
