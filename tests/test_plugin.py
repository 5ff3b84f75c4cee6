"""The example plug-in as a user has it: installed as a package of its own, used by name alone."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

from palaestra.policies import PolicySpec

PLUGIN = Path(__file__).parents[1] / "examples" / "plugin"

Palaestra = Callable[..., subprocess.CompletedProcess[str]]
"""Runs the command line with the given arguments and packages."""


def install(source: Path, target: Path) -> None:
    """Install a package without network and without touching its source."""
    copy = target.with_name(target.name + "-source")
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    subprocess.run([*pip, *options, str(copy)], check=True)


def write_package(folder: Path, name: str, entry_point: str, code: str) -> Path:
    """Write an installed package: a module and the metadata that its entry point is read from."""
    info = folder / f"{name}-0.1.0.dist-info"
    info.mkdir(parents=True)
    (folder / f"{name}.py").write_text(code)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[palaestra.policies]\n{entry_point}\n")
    return folder


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the installed plug-in."""
    target = tmp_path_factory.mktemp("plugin") / "site"
    install(PLUGIN, target)
    return target


@pytest.fixture
def palaestra(tmp_path: Path) -> Palaestra:
    """Return a function that runs the command line in a scratch folder."""

    def run(*arguments: str, packages: tuple[Path, ...] = ()) -> subprocess.CompletedProcess[str]:
        caps = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, packages))}
        return subprocess.run(
            [sys.executable, "-m", "palaestra", *arguments],
            cwd=tmp_path,
            env=os.environ | caps,
            capture_output=True,
            text=True,
        )

    return run


SHORT = ("total_steps=2000", "threads=1", "tensorboard=false", "policy.name=ema", "policy.width=8")


def overrides(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("-o", setting)]


def test_the_list_shows_the_plug_in_with_its_origin(palaestra: Palaestra, site: Path) -> None:
    listed = json.loads(palaestra("list", "--json", packages=(site,)).stdout)
    policies = {row["name"]: row for row in listed["policy"]}
    envs = {row["name"]: row for row in listed["env"]}
    assert policies["ema"]["origin"] == "package palaestra-example-plugin"
    assert "leaky integrators" in policies["ema"]["summary"]
    assert policies["ema"]["error"] is None
    assert envs["example/CueRecall-v0"]["origin"] == "package palaestra-example-plugin"
    assert policies["gru"]["origin"] == "palaestra"


def test_describe_shows_the_options_of_the_policy(palaestra: Palaestra, site: Path) -> None:
    shown = palaestra("describe", "policy", "ema", "--json", packages=(site,)).stdout
    options = {option["name"]: option for option in json.loads(shown)["options"]}
    assert options["width"]["default"] == 64
    assert "number of integrators" in options["width"]["help"]


def test_the_policy_trains_by_name_in_this_process(palaestra: Palaestra, site: Path) -> None:
    ended = palaestra(
        "train", "cartpole", "--json", *overrides(*SHORT, "evaluation=null"), packages=(site,)
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["status"] == "succeeded"


@pytest.mark.slow
def test_the_plug_in_trains_in_ray_workers(
    palaestra: Palaestra, site: Path, tmp_path: Path
) -> None:
    ended = palaestra(
        *("train", str(PLUGIN / "recall.yaml"), "--workers", "2", "--run-id", "r"),
        *overrides(*SHORT),
        packages=(site,),
    )
    assert ended.returncode == 0, ended.stderr
    manifest = json.loads((tmp_path / "runs" / "r" / "manifest.json").read_text())
    assert (manifest["status"], manifest["failures"]) == ("succeeded", [])


def test_a_wrong_option_of_the_policy_is_named(palaestra: Palaestra, site: Path) -> None:
    ended = palaestra(
        "train", "cartpole", *overrides("policy.name=ema", "policy.witdh=8"), packages=(site,)
    )
    assert ended.returncode == 2
    assert "policy.witdh" in ended.stderr
    assert "'width'" in ended.stderr


def test_a_broken_plug_in_is_listed_with_its_error(palaestra: Palaestra, tmp_path: Path) -> None:
    broken = write_package(tmp_path / "site", "broken", "bad = broken:Bad", "import nowhere")
    ended = palaestra("list", "policies", "--json", packages=(broken,))
    rows = {row["name"]: row for row in json.loads(ended.stdout)["policy"]}
    assert ended.returncode == 0
    assert "No module named 'nowhere'" in rows["bad"]["error"]
    assert rows["gru"]["error"] is None


def test_using_a_broken_plug_in_names_it_and_exits_with_2(
    palaestra: Palaestra, tmp_path: Path
) -> None:
    broken = write_package(tmp_path / "site", "broken", "bad = broken:Bad", "import nowhere")
    ended = palaestra("train", "cartpole", *overrides("policy.name=bad"), packages=(broken,))
    assert ended.returncode == 2
    assert "policy 'bad' from package broken" in ended.stderr
    assert "No module named 'nowhere'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_name_taken_twice_is_an_error_that_names_both_origins(
    palaestra: Palaestra, site: Path, tmp_path: Path
) -> None:
    rival = write_package(tmp_path / "site", "rival", "ema = rival:Other", "Other = None")
    ended = palaestra("list", "policies", packages=(site, rival))
    assert ended.returncode == 2
    assert "package palaestra-example-plugin" in ended.stderr
    assert "package rival" in ended.stderr


def test_a_name_of_palaestra_cannot_be_taken(palaestra: Palaestra, tmp_path: Path) -> None:
    rival = write_package(tmp_path / "site", "rival", "gru = rival:Other", "Other = None")
    ended = palaestra("list", "policies", packages=(rival,))
    assert ended.returncode == 2
    assert "by palaestra and by package rival" in ended.stderr


def test_a_module_named_in_the_configuration_plugs_in_by_decorator(
    palaestra: Palaestra, site: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "from palaestra.registry import register\n"
        "from palaestra_example_plugin.ema import EMAPolicy\n"
        "@register('policy', 'mine')\n"
        "class Mine(EMAPolicy):\n"
        "    '''The same under another name.'''\n"
    )
    ended = palaestra(
        *("train", "cartpole", "--dry-run", "--json"),
        *overrides("plugins=[mine]", "policy.name=mine"),
        packages=(site,),
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["config"]["policy"]["name"] == "mine"


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[PolicySpec]:
    """Register the policy in this process for one test, and return its specification."""
    from palaestra.registry import Entry, Registry

    monkeypatch.syspath_prepend(str(PLUGIN / "src"))
    policy = importlib.import_module("palaestra_example_plugin.ema").EMAPolicy
    registry = Registry()
    registry.add(Entry("policy", "ema", policy, "the test"))
    monkeypatch.setattr("palaestra.policies.base.registry", registry)
    yield PolicySpec("ema", {"width": 5})
    for name in ("palaestra_example_plugin.ema", "palaestra_example_plugin"):
        sys.modules.pop(name, None)


def test_stepping_equals_forward_over_a_window_with_resets(registered: PolicySpec) -> None:
    B, T, rng = 3, 9, np.random.default_rng(0)
    policy = registered.build(spaces.Box(-1, 1, (4,)), spaces.Discrete(2)).double()
    x = torch.from_numpy(rng.standard_normal((B, T, 4)))
    reset = torch.from_numpy(rng.random((B, T)) < 0.3)
    start = policy.initial_state(B).map(lambda h: h + 1)  # as after an earlier episode
    output, end = policy(x, start, reset)
    state = start
    for t in range(T):
        one, state = policy.step(x[:, t], state, reset[:, t])
        torch.testing.assert_close(one.value, output.value[:, t])
        torch.testing.assert_close(one.distribution.log_probs, output.distribution.log_probs[:, t])
    torch.testing.assert_close(state.h, end.h)


def test_nothing_crosses_a_reset(registered: PolicySpec) -> None:
    policy = registered.build(spaces.Box(-1, 1, (4,)), spaces.Discrete(2)).double()
    x = torch.randn(1, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    reset = torch.tensor([[True, False, False, True, False, False]])
    output, _ = policy(x, policy.initial_state(1), reset)
    (gradient,) = torch.autograd.grad(output.value[:, 3:].sum(), x)
    assert (gradient[:, :3] == 0).all()
    assert (gradient[:, 3:] != 0).any()
