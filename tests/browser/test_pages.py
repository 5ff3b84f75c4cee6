"""The pages that people look at, opened and clicked through in a browser without a screen.

They need Chromium; the tests are skipped where there is none. With PALAESTRA_SCREENSHOTS=FOLDER
every page is also saved as a picture.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]

SETTINGS = [
    "threads=1",
    "env.num_envs=8",
    "rollout.steps=50",
    "total_steps=4000",
    "tensorboard=false",
    "evaluation.seeds=2",
    "evaluation.episodes=4",
    "evaluation.baselines=[random, ucb]",
]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two seeds of a small run, evaluated and reported."""
    folder = tmp_path_factory.mktemp("work")
    for seed in (0, 1):
        command = ["train", "demo", "--seed", str(seed), "--run-id", f"seed-{seed}"]
        palaestra(folder, *command, *(word for o in SETTINGS for word in ("-o", o)))
    palaestra(folder, "report", "seed-0", "seed-1", "--out", "both.html")
    return folder


def palaestra(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "palaestra", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a screen and without calls home."""
    playwright = pytest.importorskip("playwright.sync_api")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", "--no-first-run"]
    with playwright.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield chromium
        chromium.close()


class Watched:
    """A page whose every complaint and every request elsewhere is noted."""

    def __init__(self, browser: Any, *, dark: bool = False, width: int = 1200) -> None:
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        self.page = browser.new_page(
            viewport={"width": width, "height": 1400}, color_scheme="dark" if dark else "light"
        )
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._check)

    def _note(self, message: Any) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def _check(self, request: Any) -> None:
        if not re.match(r"(file|data|blob):|https?://(127\.0\.0\.1|localhost)[:/]", request.url):
            self.elsewhere.append(request.url)

    def picture(self, name: str) -> None:
        folder = os.environ.get("PALAESTRA_SCREENSHOTS")
        if folder:
            self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)

    def close(self) -> None:
        self.page.close()
        assert not self.complaints
        assert not self.elsewhere


@pytest.mark.parametrize("name", ["runs/seed-0/report.html", "both.html"])
@pytest.mark.parametrize(("dark", "width"), [(False, 1200), (True, 1200), (False, 390)])
def test_a_report_opens_and_everything_in_it_can_be_clicked(
    work: Path, browser: Any, name: str, dark: bool, width: int
) -> None:
    watched = Watched(browser, dark=dark, width=width)
    page = watched.page
    page.goto((work / name).as_uri())
    assert page.locator(".plot .main-svg").count() > 0
    for summary in page.locator("summary:visible").all():
        summary.click()
    plots = page.locator(".plot:visible")
    assert plots.count() == page.locator(".plot:visible:has(.main-svg)").count()
    for button in page.locator("th button:visible").all():
        button.click()
        assert button.locator("xpath=..").get_attribute("aria-sort") is not None
    for link in page.locator('a[href^="#"]:visible').all():
        link.click()
    curve = page.locator(".plot:visible").first
    curve.scroll_into_view_if_needed()
    curve.hover()
    assert page.locator(".hoverlayer .hovertext, .hoverlayer .legend").count() > 0
    for trace in page.locator(".trace").all():  # nothing of it lies beyond the right edge
        assert trace.evaluate("e => e.scrollWidth <= e.clientWidth")
    cells = page.locator(".trace .hit:visible")
    if cells.count():
        cells.first.click()
        assert page.locator(".trace .readout").first.inner_text()
    page.evaluate("window.scrollTo(0, 0)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    watched.picture(f"{Path(name).stem}-{'dark' if dark else 'light'}-{width}")
    watched.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def ui(work: Path) -> Iterator[str]:
    """The address of `palaestra ui` over the runs."""
    pytest.importorskip("mlflow")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "palaestra", "ui", "--port", str(port)],
        cwd=work,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    told = ""
    for line in process.stdout:
        told += line
        if f"http://127.0.0.1:{port}" in line:
            break
    else:
        raise AssertionError(told)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.communicate(timeout=60)


def test_the_web_page_shows_the_runs_with_their_curves_and_tables(ui: str, browser: Any) -> None:
    watched = Watched(browser)
    page = watched.page
    page.goto(ui)
    page.goto(f"{ui}/#/experiments")
    page.get_by_role("link", name="demo", exact=True).first.click()
    for name in ("seed-0", "seed-1"):
        page.get_by_role("link", name=name).first.wait_for()
    watched.picture("ui-runs")
    page.get_by_role("link", name="seed-1").first.click()
    page.get_by_text("agent.learning_rate").first.wait_for()
    watched.picture("ui-run")
    page.get_by_role("tab", name="Model metrics").click()
    page.get_by_placeholder("Search metric charts").fill("rollout/regret")
    page.locator(".js-plotly-plot").first.wait_for()
    watched.picture("ui-metrics")
    page.goto(f"{ui}/#/experiments/1/runs?compareRunsMode=CHART")
    page.locator(".js-plotly-plot").first.wait_for()
    assert page.get_by_role("link", name="seed-0").count() > 0
    watched.picture("ui-compare")
    watched.close()


def test_the_web_page_does_not_serve_what_could_run_commands(ui: str, browser: Any) -> None:
    page = browser.new_page()
    for path in ("/ajax-api/3.0/mlflow/assistant/message", "/ajax-api/3.0/mlflow/jobs"):
        assert page.request.post(f"{ui}{path}", data="{}").status in (403, 404, 405)
    page.close()
