"""A folder from anywhere: whatever is wrong is named, and nothing in it is ever executed."""

import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from palaestra.errors import UserError
from palaestra.runs.export import plugins
from palaestra.runs.export.layout import facts_of, is_export
from palaestra.runs.export.read import ExportedActors
from palaestra.runs.export.weights import from_safetensors, to_safetensors
from palaestra.runs.store.folder import RunFolder

Copy = Callable[[str], Path]

FILES = ["README.md", "config.yaml", "model.safetensors", "replay.jsonl", "results.json"]


def change_manifest(folder: Path, **values: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def forge(folder: Path, name: str, content: bytes) -> None:
    """Put other content into a file, with the manifest to match: what a malicious author can do."""
    (folder / name).write_bytes(content)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    change_manifest(folder, files={**files, name: facts_of(content).model_dump()})


def forge_config(folder: Path, **values: Any) -> None:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    forge(folder, "config.yaml", yaml.safe_dump({**config, **values}).encode())


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copy_of: Copy, name: str) -> None:
    folder = copy_of("ppo-gru")
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name}: missing or altered"):
        ExportedActors(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("longer", [False, True])
def test_an_altered_file_is_named(copy_of: Copy, name: str, longer: bool) -> None:
    folder = copy_of("ppo-gru")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(bytes(content) + (b" " if longer else b""))
    with pytest.raises(UserError, match=f"{name}: missing or altered"):
        ExportedActors(folder)


@pytest.mark.parametrize("name", ["sitecustomize.py", "model.bin", ".hidden", "sub"])
def test_a_foreign_file_is_named(copy_of: Copy, name: str) -> None:
    folder = copy_of("ppo-gru")
    (folder / name).mkdir() if name == "sub" else (folder / name).write_text("x")
    with pytest.raises(UserError, match=f"{name}: not part of the export"):
        ExportedActors(folder)


def test_what_a_hub_adds_is_ignored(copy_of: Copy) -> None:
    folder = copy_of("ppo-gru")
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs")
    (folder / ".git").mkdir()
    assert ExportedActors(folder).step > 0


def test_a_link_to_something_else_is_an_altered_file(copy_of: Copy, tmp_path: Path) -> None:
    folder = copy_of("ppo-gru")
    (tmp_path / "secret").write_text("x")
    for target in (tmp_path / "secret", Path("/dev/zero")):
        (folder / "README.md").unlink()
        (folder / "README.md").symlink_to(target)
        with pytest.raises(UserError, match=r"README.md: missing or altered"):
            ExportedActors(folder)


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "sub/x", "..", ".", "", "a\\b", "C:x", "x\n", "manifest.json"]
)
def test_a_hostile_name_in_the_manifest_is_refused(copy_of: Copy, name: str) -> None:
    folder = copy_of("ppo-gru")
    (folder.parent / "x").write_text("x")
    files = json.loads((folder / "manifest.json").read_text())["files"]
    change_manifest(folder, files={**files, name: facts_of(b"x").model_dump()})
    with pytest.raises(UserError, match="is not accepted: the name of a file"):
        ExportedActors(folder)


def test_a_manifest_that_leaves_a_file_out_is_refused(copy_of: Copy) -> None:
    folder = copy_of("ppo-gru")
    files = json.loads((folder / "manifest.json").read_text())["files"]
    del files["model.safetensors"]
    change_manifest(folder, files=files)
    with pytest.raises(UserError, match=r"'model.safetensors' is missing"):
        ExportedActors(folder)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"schema_version": 2}, "format version 2 is newer than 1"),
        ({"schema_version": "1; rm"}, "schema_version"),
        ({"format": "something"}, "not the manifest of an export"),
        ({"files": ["model.safetensors"]}, "files"),
        ({"files": {"README.md": {"bytes": -1, "sha256": "0" * 64}}}, "files.README.md.bytes"),
        ({"files": {"README.md": {"bytes": 1, "sha256": "zz"}}}, "files.README.md.sha256"),
        ({"surprise": 1}, "surprise: unknown key"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(
    copy_of: Copy, values: dict[str, Any], said: str
) -> None:
    folder = copy_of("ppo-gru")
    change_manifest(folder, **values)
    with pytest.raises(UserError, match=said):
        ExportedActors(folder)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[1]", "\xff", "x" * 1_000_001])
def test_a_manifest_that_is_no_json_object_is_refused(copy_of: Copy, text: str) -> None:
    folder = copy_of("ppo-gru")
    (folder / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"manifest.json: (not JSON|not the manifest|larger than)"):
        ExportedActors(folder)


def test_a_run_folder_is_no_export(runs: dict[str, RunFolder], tmp_path: Path) -> None:
    assert not is_export(runs["ppo-gru"].path)
    assert not is_export(tmp_path)
    with pytest.raises(UserError, match="not the manifest of an export"):
        ExportedActors(runs["ppo-gru"].path)
    with pytest.raises(UserError, match=r"manifest.json is missing"):
        ExportedActors(tmp_path)


@pytest.mark.parametrize("dump", ["pickle", "torch", "header", "empty"])
def test_weights_of_another_format_are_refused_and_not_unpickled(
    copy_of: Copy, tmp_path: Path, dump: str
) -> None:
    folder, target = copy_of("ppo-gru"), tmp_path / "executed"
    file = tmp_path / "weights"
    if dump == "torch":
        torch.save({"bomb": Bomb(target)}, file)
    contents = {
        "pickle": pickle.dumps({"bomb": Bomb(target)}),
        "torch": file.read_bytes() if dump == "torch" else b"",
        "header": (2**62).to_bytes(8, "little") + b"{}",
        "empty": b"",
    }
    forge(folder, "model.safetensors", contents[dump])
    with pytest.raises(UserError, match=r"model.safetensors: not a safetensors file"):
        ExportedActors(folder)
    assert not target.exists()


@pytest.mark.parametrize("name", ["ppo-gru", "q-learning"])
@pytest.mark.parametrize("change", ["shape", "type", "name", "none"])
def test_weights_of_another_agent_are_refused(copy_of: Copy, name: str, change: str) -> None:
    folder = copy_of(name)
    path = folder / "model.safetensors"
    weights = from_safetensors(path.read_bytes(), path)
    key = sorted(weights)[0]
    array = weights.pop(key)
    if change != "none":
        new = {"shape": array[..., :1], "type": array.astype(np.int32)}.get(change, array)
        weights["other" if change == "name" else key] = new
    forge(folder, path.name, to_safetensors(weights))
    with pytest.raises(UserError, match=r"model.safetensors: '.*' is .*, but the agent"):
        ExportedActors(folder)


@pytest.mark.parametrize(
    "text",
    [
        "total_steps: !!python/object/apply:os.mkdir [executed]",
        "!!python/object/apply:os.system ['mkdir executed']",
        "total_steps: !!python/name:os.system",
        "total_steps: !own 1",
        "a: &a [1, 1]\nb: [*a, *a]",
        "a: &a [*a]",
        "[" * 500,
        "a: [",
        "- 1",
        "just text",
        "\x00",
    ],
)
def test_a_configuration_that_is_not_plain_data_is_refused(
    copy_of: Copy, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = copy_of("ppo-gru")
    forge(folder, "config.yaml", text.encode())
    with pytest.raises(UserError, match=r"config.yaml"):
        ExportedActors(folder)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"agent": {"name": "os.system"}}, "unknown agent 'os.system'"),
        ({"env": {"id": "antigravity:Fly-v0"}}, "needs the module 'antigravity'"),
        (
            {"env": {"id": "CartPole-v1", "wrappers": ["antigravity:Fly"]}},
            "needs the module 'antigravity'",
        ),
        (
            {"env": {"id": "CartPole-v1", "wrappers": [{"name": "antigravity:Fly"}]}},
            "needs the module 'antigravity'",
        ),
        ({"surprise": 1}, "surprise: unknown key"),
        ({"plugins": "os"}, "a list of modules is expected"),
        ({"plugins": [["os"]]}, "a list of modules is expected"),
    ],
)
def test_names_in_the_configuration_are_looked_up_and_never_imported(
    copy_of: Copy, values: dict[str, Any], said: str
) -> None:
    folder = copy_of("ppo-gru")
    forge_config(folder, **values)
    with pytest.raises(UserError, match=said):
        ExportedActors(folder)
    assert "antigravity" not in sys.modules


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, str], Path]:
    """Return a function that puts a module, which marks its import, into a folder on the path."""

    def make(folder: Path, name: str) -> Path:
        folder.mkdir(exist_ok=True)
        mark = tmp_path / f"{name}-imported"
        (folder / f"{name}.py").write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n")
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.delitem(sys.modules, name, raising=False)
        return mark

    return make


def test_a_plugin_is_imported_only_if_it_is_installed_and_allowed(
    copy_of: Copy,
    plugin: Callable[[Path, str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = tmp_path / "site-packages"
    monkeypatch.setattr(plugins, "installed_folders", lambda: [str(site)])
    mark = plugin(site, "shop_installed")
    folder = copy_of("ppo-gru")
    forge_config(folder, plugins=["shop_installed"])
    with pytest.raises(UserError, match="--allow-plugin shop_installed"):
        ExportedActors(folder)
    assert not mark.exists()
    path = list(sys.path)
    actors = ExportedActors(folder, ["shop_installed"])
    assert mark.exists()
    assert actors.config.plugins == ()
    assert sys.path == path  # the working directory is not searched from now on


@pytest.mark.parametrize("place", ["beside the export", "in the working directory"])
def test_a_plugin_that_is_not_installed_is_refused_even_if_allowed(
    copy_of: Copy,
    plugin: Callable[[Path, str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    folder = copy_of("ppo-gru")
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    mark = plugin(folder.parent if place == "beside the export" else Path.cwd(), "shop_local")
    forge_config(folder, plugins=["shop_local"])
    for allowed in ([], ["shop_local"]):
        with pytest.raises(UserError, match="plugins: "):
            ExportedActors(folder, allowed)
    with pytest.raises(UserError, match="it was found at"):
        ExportedActors(folder, ["shop_local"])
    assert not mark.exists()


@pytest.mark.parametrize("module", ["not_there_at_all", "os", "", ".", ".."])
def test_a_plugin_that_is_no_installed_package_is_refused(copy_of: Copy, module: str) -> None:
    folder = copy_of("ppo-gru")
    forge_config(folder, plugins=[module])
    with pytest.raises(UserError, match="plugins: module"):
        ExportedActors(folder, [module])
