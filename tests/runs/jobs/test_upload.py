"""The upload of a job: what goes in, what never does, what is refused by name."""

import os
import subprocess
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest

import palaestra
from palaestra.errors import UserError
from palaestra.runs.jobs.package import Upload, make_upload
from palaestra.runs.jobs.plugins import distribution_files, module_sources, plug_ins


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    return folder


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def install(site: Path, name: str, points: str, *, version: str = "1.0", module: str = "") -> None:
    """Write an installed package `name` whose module is `module`."""
    module = module or name.replace("-", "_")
    write(site / module / "__init__.py", f"NAME = {name!r}\n")
    write(site / module / "data" / "table.csv", "1,2\n")
    info = site / f"{module}-{version}.dist-info"
    write(info / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    write(info / "entry_points.txt", points)


def included(work: Path, *paths: str) -> set[str]:
    upload = Upload(work / "runs")
    for path in paths:
        upload.add_included(Path(path), work)
    return set(upload.files)


def test_an_upload_holds_the_configuration_and_the_whole_of_palaestra(work: Path) -> None:
    upload = make_upload("seed: 0\n", (), (), work / "runs")
    assert upload.files["config.yaml"] == b"seed: 0\n"
    source = Path(palaestra.__path__[0])
    modules = {f"palaestra/{p.relative_to(source).as_posix()}" for p in source.rglob("*.py")}
    assert modules <= set(upload.files)
    assert {"palaestra/py.typed", "palaestra/runs/report/templates/page.css"} <= set(upload.files)
    assert not [name for name in upload.files if "__pycache__" in name or name.endswith(".pyc")]


def test_what_is_written_is_what_was_listed(work: Path, tmp_path: Path) -> None:
    write(work / "data" / "deep" / "a.txt", "abc")
    upload = make_upload("seed: 0\n", (), (Path("data"),), work / "runs")
    upload.write(tmp_path / "out")
    written = {
        p.relative_to(tmp_path / "out").as_posix(): p.stat().st_size
        for p in (tmp_path / "out").rglob("*")
        if p.is_file()
    }
    assert set(written) == set(upload.files)
    assert sum(written.values()) == upload.size
    assert (tmp_path / "out" / "data" / "deep" / "a.txt").read_text() == "abc"


def test_results_histories_and_caches_are_never_uploaded(work: Path) -> None:
    left_out = [
        *(".git/config", "runs/r/log.txt", "evaluations/e", "wandb/w", "mlruns/m", "videos/v.mp4"),
        *(".venv/bin/python", "__pycache__/a.pyc", "b.pyc", "my.egg-info/PKG-INFO", ".gitignore"),
        *(".mypy_cache/x", ".pytest_cache/x", ".ruff_cache/x", ".cache/x", ".hypothesis/x"),
        "node_modules/x",
    ]
    for name in [*left_out, *(f"lab/{name}" for name in left_out), "lab/keep.py", "keep.txt"]:
        write(work / name)
    assert included(work, ".") == {"keep.txt", "lab/keep.py"}


def test_a_python_package_may_be_called_like_a_folder_of_results(work: Path) -> None:
    write(work / "lab" / "runs" / "__init__.py")
    write(work / "lab" / "runs" / "one.py")
    assert included(work, "lab") == {"lab/runs/__init__.py", "lab/runs/one.py"}


def test_the_runs_directory_is_left_out_whatever_its_name(work: Path) -> None:
    write(work / "lab" / "keep.py")
    write(work / "lab" / "experiments" / "r" / "manifest.json")
    upload = Upload(work / "lab" / "experiments")
    upload.add_included(Path("lab"), work)
    assert set(upload.files) == {"lab/keep.py"}


@pytest.mark.parametrize("path", ["runs", "runs/r", ".git", "lab/__pycache__"])
def test_including_what_is_never_uploaded_is_an_error(work: Path, path: str) -> None:
    write(work / path / "x")
    with pytest.raises(UserError, match="never uploaded"):
        included(work, path)


@pytest.mark.parametrize("path", ["..", "../other", "/etc/hostname"])
def test_only_the_working_directory_can_be_included(work: Path, path: str) -> None:
    write(work.parent / "other" / "secret")
    with pytest.raises(UserError, match="only files and folders of the working directory"):
        included(work, path)


def test_what_is_missing_is_named(work: Path) -> None:
    with pytest.raises(UserError, match="'nowhere': there is no such"):
        included(work, "nowhere")


def test_a_link_that_leaves_its_folder_is_refused_by_name(work: Path) -> None:
    write(work.parent / "secret")
    write(work / "lab" / "keep.py")
    (work / "lab" / "link").symlink_to(work.parent / "secret")
    with pytest.raises(UserError, match=r"lab/link: this link leads to .*secret"):
        included(work, "lab")
    with pytest.raises(UserError, match="only files and folders of the working directory"):
        included(work, "lab/link")


def test_a_linked_folder_that_leaves_is_refused_and_one_that_stays_is_copied(work: Path) -> None:
    write(work / "lab" / "one" / "a.py")
    (work / "lab" / "two").symlink_to("one")
    assert included(work, "lab") == {"lab/one/a.py", "lab/two/a.py"}
    (work / "lab" / "three").symlink_to(work.parent)
    with pytest.raises(UserError, match="lab/three"):
        included(work, "lab")


def test_links_in_a_circle_end_with_an_error(work: Path) -> None:
    write(work / "lab" / "one" / "a.py")
    write(work / "lab" / "two" / "b.py")
    (work / "lab" / "one" / "to").symlink_to("../two")
    (work / "lab" / "two" / "to").symlink_to("../one")
    with pytest.raises(UserError, match="leads back"):
        included(work, "lab")


def test_a_link_to_nothing_and_a_pipe_are_refused_by_name(work: Path) -> None:
    (work / "lab").mkdir()
    (work / "lab" / "dangling").symlink_to("gone")
    with pytest.raises(UserError, match="dangling: neither a file nor a folder"):
        included(work, "lab")
    (work / "lab" / "dangling").unlink()
    os.mkfifo(work / "lab" / "pipe")
    with pytest.raises(UserError, match="pipe: neither a file nor a folder"):
        included(work, "lab")


def test_two_files_for_one_place_are_an_error_that_names_both(work: Path) -> None:
    write(work / "config.yaml", "mine: 1")
    with pytest.raises(UserError, match=r"two files 'config.yaml'.*work/config.yaml"):
        make_upload("seed: 0\n", (), (Path("config.yaml"),), work / "runs")


def test_the_same_file_twice_is_one_file(work: Path) -> None:
    write(work / "shop.py")
    upload = make_upload("", ("shop",), (Path("shop.py"), Path()), work / "runs")
    assert upload.files["shop.py"] == work / "shop.py"


def test_an_upload_above_the_limit_lists_the_ten_largest_files(work: Path) -> None:
    upload = Upload(work / "runs")
    for i in range(12):
        upload.add(f"file-{i:02d}", b"x" * (1000 + i))
    upload.check_size(limit=upload.size)
    with pytest.raises(UserError) as caught:
        upload.check_size(limit=upload.size - 1)
    listed = [line.split()[-1] for line in str(caught.value).splitlines()[1:]]
    assert listed == [f"file-{i:02d}" for i in range(11, 1, -1)]


def test_a_hole_in_a_file_counts_with_its_size_before_anything_is_copied(work: Path) -> None:
    with (work / "huge.bin").open("wb") as file:
        file.truncate(2 * 1024**3)
    with pytest.raises(UserError, match=r"2048\.\d+ MiB|20\d\d\.\d MiB"):
        make_upload("", (), (Path("huge.bin"),), work / "runs")


def test_plug_in_modules_of_the_working_directory_are_found_whole(work: Path) -> None:
    write(work / "shop.py")
    write(work / "lab" / "__init__.py")
    write(work / "lab" / "inner" / "deep.py")
    write(work / "loose" / "part.py")  # without __init__.py
    upload = make_upload("", ("shop", "lab.inner.deep", "loose.part"), (), work / "runs")
    wanted = {"shop.py", "lab/__init__.py", "lab/inner/deep.py", "loose/part.py"}
    assert wanted <= set(upload.files)


@pytest.mark.parametrize("module", ["json", "numpy.linalg", "yaml", "palaestra.envs", "sys", "no"])
def test_what_every_installation_has_is_not_a_plug_in_module(work: Path, module: str) -> None:
    assert module_sources(module, installed=False) == []


def distribution(name: str) -> Distribution:
    return next(d for d in distributions() if d.metadata["Name"] == name)


def test_an_installed_plug_in_is_found_by_its_entry_points_from_the_upload_alone(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    points = "[console_scripts]\ntool = my_plug:x\n[palaestra.policies]\nmine = my_plug:NAME\n"
    install(site, "my-plug", points + "[palaestra.envs]\nmy/Env-v0 = my_plug.envs:E[extra]\n")
    monkeypatch.syspath_prepend(str(site))
    make_upload("", (), (), work / "runs").write(tmp_path / "out")
    assert (tmp_path / "out" / "my_plug" / "data" / "table.csv").is_file()
    code = (
        "from importlib.metadata import entry_points, version\n"
        "import my_plug, palaestra\n"
        "print(version('my-plug'), my_plug.__file__, palaestra.__file__)\n"
        "for kind in ('envs', 'policies'):\n"
        "    for p in entry_points(group=f'palaestra.{kind}'):\n"
        "        print(p.dist.name, p.name, p.value)\n"
        "print(p.load(), len(entry_points(group='console_scripts')))\n"
    )
    out = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=tmp_path / "out",
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"]},
    ).stdout.splitlines()
    assert out[0].split()[0] == "1.0"
    assert all(str(tmp_path / "out") in place for place in out[0].split()[1:])
    assert out[1:] == [
        "my-plug my/Env-v0 my_plug.envs:E[extra]",
        "my-plug mine my_plug:NAME",
        "my-plug 0",
    ]


def test_packages_without_entry_points_for_palaestra_stay_where_they_are(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "site", "other", "[console_scripts]\nx = other:NAME\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert not {d.metadata["Name"] for d in plug_ins()} & {"other", "numpy", "palaestra"}


def test_a_package_takes_its_other_modules_along_but_not_those_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    install(site, "plug", "[palaestra.envs]\nx = plug:NAME\n")
    write(site / "plug_helper.py")
    write(elsewhere / "tests" / "__init__.py")
    write(site / "plug-1.0.dist-info" / "top_level.txt", "plug\nplug_helper\ntests\n")
    monkeypatch.syspath_prepend(str(elsewhere))
    monkeypatch.syspath_prepend(str(site))
    sources, _ = distribution_files(distribution("plug"))
    assert sources == [site / "plug", site / "plug_helper.py"]


def test_a_plug_in_whose_module_is_gone_is_left_out(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "site", "broken", "[palaestra.envs]\nx = nowhere_at_all:X\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert not [n for n in make_upload("", (), (), work / "runs").files if n.startswith("broken")]


@pytest.mark.parametrize(
    ("name", "version"),
    [("../../up", "1.0"), ("/abs", "1.0"), ("a b", "1.0"), ("plug", "../1"), ("plug", "1 0")],
)
def test_names_and_versions_that_could_lead_elsewhere_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    version: str,
) -> None:
    info = tmp_path / "site" / "odd-1.0.dist-info"
    write(info / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    write(info / "entry_points.txt", "[palaestra.envs]\nx = odd:X\n")
    write(tmp_path / "site" / "odd.py")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with pytest.raises(UserError, match="plug-in package"):
        distribution_files(distribution(name))


def test_a_plug_in_cannot_replace_a_file_of_palaestra(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rival = write(tmp_path / "rival" / "__init__.py", "evil = True")
    upload = Upload(work / "runs")
    upload.add_source(Path(palaestra.__path__[0]))
    with pytest.raises(UserError, match=r"two files 'palaestra/__init__\.py'"):
        upload.add("palaestra/__init__.py", rival)
