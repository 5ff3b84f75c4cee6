"""The written report: page, data and pictures."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_example import (
    PLACE,
    STEPS,
    game_record,
    read_run,
    read_runs,
    report_on,
    write_identity,
    write_json,
    write_lines,
    write_run,
)

from palaestra.errors import RunError, UserError
from palaestra.runs.report.build import place
from palaestra.runs.report.data import gather
from palaestra.runs.report.page import render
from palaestra.runs.report.render import script_data
from palaestra.runs.report.shown import record, shows

_VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Checks that elements are closed in order, and gathers text and attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" not in self.open and "style" not in self.open:
            self.text += data

    def having(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def read_page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def render_runs(*folders: Path) -> str:
    return render(gather(read_runs(folders)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_on(write_run(tmp_path_factory.mktemp("runs")))


def test_page_data_and_pictures_are_written_into_the_run_folder(finished: Path) -> None:
    assert finished.name == "report.html"
    for name in ("report.json", "report-curves.png", "report-evaluation.png", "report-trace.png"):
        content = (finished.parent / name).read_bytes()
        assert content.startswith(b"\x89PNG" if name.endswith("png") else b"{")


def test_page_is_well_formed_and_holds_every_part(finished: Path) -> None:
    page = read_page(finished)
    for part in (
        "Learning",
        "Evaluation on",
        "Step by step",
        "Inside the training",
        "The run",
        "GreedyFrac",
        "K·MinFrac",
        "To reproduce",
        "palaestra train",
        "torch 2.",
    ):
        assert part in page.text


def test_page_loads_nothing_from_elsewhere(finished: Path) -> None:
    page = read_page(finished)
    links = [a.get(key) for _, a in page.tags for key in ("src", "href", "data-src") if a.get(key)]
    assert links == ["data:,"]
    policy = next(a["content"] for a in page.having("meta") if "http-equiv" in a)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert finished.read_text(encoding="utf-8").count("plotly.js v") == 1


def test_page_names_no_path_of_the_machine(finished: Path) -> None:
    assert str(finished.parent.parent) not in finished.read_text(encoding="utf-8")
    assert str(finished.parent.parent) not in finished.with_suffix(".json").read_text()


def test_every_drawing_and_control_has_a_name(finished: Path) -> None:
    page = read_page(finished)
    drawings = [a for a in page.having("svg") + page.having("div") if a.get("role") == "img"]
    assert len(drawings) > 4
    assert all(a.get("aria-label") for a in drawings)
    text = finished.read_text(encoding="utf-8").partition("<body>")[2].partition("<script")[0]
    assert all(label.strip() for label in re.findall(r"<button[^>]*>(.*?)</button>", text))


def test_data_of_curves_and_tables_equals_what_the_run_logged(finished: Path) -> None:
    data = json.loads(finished.with_suffix(".json").read_text())
    logged = [json.loads(s) for s in (finished.parent / "metrics.jsonl").read_text().splitlines()]
    chart = next(c for c in data["charts"] if c["metric"] == "train/entropy")
    assert chart["series"][0]["lines"][0]["y"] == [row["train/entropy"] for row in logged]
    assert data["tables"][0]["rows"][0]["cells"]["regret"]["value"] > 0


def test_the_own_agent_stands_out_and_no_column_has_two_best(finished: Path) -> None:
    html = finished.read_text(encoding="utf-8")
    rows = re.findall(r'<tr class="(trained|baseline)">(.*?)</tr>', html, re.DOTALL)
    assert sorted(kind for kind, _ in rows) == ["baseline"] * 4 + ["trained"]
    cells = [re.findall(r"<t[dh] [^>]*>", row) for _, row in rows]
    best = [sum('class="best"' in cell for cell in column) for column in zip(*cells, strict=True)]
    assert max(best) <= 1


def test_writing_twice_gives_the_same_page(finished: Path) -> None:
    before = finished.read_bytes()
    assert report_on(finished.parent).read_bytes() == before


def test_several_runs_share_one_page_beside_them(tmp_path: Path) -> None:
    folders = [write_run(tmp_path, seed) for seed in range(2)] + [write_run(tmp_path, 0, "other")]
    path = report_on(*folders)
    assert path == tmp_path / "report-meta-bandit-vs-other.html"
    assert (tmp_path / "report-meta-bandit-vs-other-curves.png").is_file()
    page = read_page(path)
    assert "meta-bandit" in page.text
    assert "2 training seeds" in page.text


def test_whatever_comes_from_the_run_is_escaped(tmp_path: Path) -> None:
    folder = write_run(tmp_path, experiment="</script><img src=x onerror=alert(1)>")
    attack = "</script><script>alert(2)</script>"
    rows = [{"agent_steps": i, attack: 1.0 * i, "rollout/return": 1.0} for i in range(3)]
    write_lines(folder / "metrics.jsonl", rows)
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config + f"note: '{attack}\"'\n")
    path = folder / "eval" / PLACE / "ucb" / "summary.json"
    summary = json.loads(path.read_text())
    write_json(path, {**summary, "agent": '"><svg onload=alert(3)>', "mode": attack})
    page = Page(render_runs(folder))
    assert page.having("img") == []
    assert not any("onload" in attrs or "onerror" in attrs for _, attrs in page.tags)
    assert len(page.having("script")) == 4
    assert attack in page.text


def test_script_data_cannot_end_its_element_and_is_unchanged() -> None:
    data = {"name": "</script><!--", "x": [1, 2.5, None]}
    text = script_data(data)
    assert "<" not in text
    assert json.loads(text) == data


@pytest.mark.parametrize("lines", [0, 1])
def test_partial_runs_give_a_sensible_page_without_stale_pictures(
    tmp_path: Path, lines: int
) -> None:
    write_identity(tmp_path, "bare", "bare", 0)
    write_lines(
        tmp_path / "metrics.jsonl", [{"agent_steps": 64, "rollout/return": 2.0, "t": 1.0}] * lines
    )
    (tmp_path / "report-evaluation.png").write_bytes(b"old")
    page = read_page(report_on(tmp_path))
    assert "has not been evaluated" in page.text
    assert "To reproduce" in page.text
    assert ("Learning" in page.text) == bool(lines)
    assert (tmp_path / "report-curves.png").is_file() == bool(lines)
    assert not (tmp_path / "report-evaluation.png").exists()


def test_a_game_is_drawn_board_by_board(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    for path in folder.glob("eval/*/*/summary.json"):
        summary = json.loads(path.read_text())
        summary["tasks"][0]["trace"] = [game_record()]
        write_json(path, summary)
    page = Page(render_runs(folder))
    boards = [a["aria-label"] for a in page.having("svg") if a.get("width") == "66"]
    assert boards == [
        "agent: top left: X.. / ... / ...",
        "opponent: centre: X.. / .O. / ...",
        "agent: top: XX. / .O. / ...",
        "opponent: bottom: XX. / .O. / .O.",
        "agent: top right: XXX / .O. / .O.",
    ]
    assert "won by the agent" in page.text


def test_a_page_says_which_step_of_which_run_it_shows(tmp_path: Path) -> None:
    folders = [write_run(tmp_path, seed) for seed in range(2)]
    page = report_on(*folders)
    assert shows(page) == record(read_runs(folders))
    assert [entry["step"] for entry in shows(page).values()] == [STEPS, STEPS]
    manifest = json.loads((folders[0] / "manifest.json").read_text())
    write_json(folders[0] / "manifest.json", {**manifest, "agent_steps": 2 * STEPS})
    assert shows(page) != record(read_runs(folders))


def test_a_new_evaluation_makes_a_page_old(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    page = report_on(folder)
    assert shows(page) == record([read_run(folder)])
    path = folder / "eval" / PLACE / "ucb" / "summary.json"
    write_json(path, {**json.loads(path.read_text()), "protocol": "another"})
    assert shows(page) != record([read_run(folder)])


def test_a_page_that_was_cut_or_is_none_shows_nothing(finished: Path, tmp_path: Path) -> None:
    assert shows(finished)
    content = finished.read_bytes()
    for end in (0, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "cut.html").write_bytes(content[:end])
        assert shows(tmp_path / "cut.html") == {}
    assert shows(tmp_path / "nowhere.html") == {}


def test_files_that_cannot_be_written_whole_leave_the_old_ones(tmp_path: Path) -> None:
    (tmp_path / "page").write_text("old")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="report could not be written"):
        place({tmp_path / "page": b"new", tmp_path / "file" / "data": b"new"})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "page"]
    assert (tmp_path / "page").read_text() == "old"


def test_the_page_is_placed_last_and_nothing_else_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(tmp_path)
    before = {path.name for path in folder.iterdir()}
    order: list[str] = []
    replace = Path.replace

    def noted(self: Path, target: Path) -> Path:
        order.append(target.name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", noted)
    report_on(folder)
    assert order[-1] == "report.html"
    assert {path.name for path in folder.iterdir()} - before == set(order)


def test_the_page_can_be_written_elsewhere(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs")
    out = tmp_path / "new" / "mine.html"
    assert report_on(folder, out=out) == out
    assert out.with_suffix(".json").is_file()
    assert (out.parent / "mine-curves.png").is_file()
    with pytest.raises(UserError, match=r"mine\.pdf"):
        report_on(folder, out=out.with_suffix(".pdf"))


def test_importing_the_report_imports_neither_plotly_nor_matplotlib() -> None:
    import subprocess
    import sys

    code = (
        "import sys, palaestra.runs.report.build\n"
        "sys.exit(any(m in sys.modules for m in ('plotly', 'matplotlib', 'torch', 'ray')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
