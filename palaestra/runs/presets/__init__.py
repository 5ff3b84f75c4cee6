"""Presets as data: one YAML file each, whose first line says what it is for."""

from importlib import resources
from typing import Any

from palaestra.registry import register_builtin


def register_presets() -> None:
    """Register every YAML file beside this module as a preset of its name."""
    for file in sorted(resources.files(__package__).iterdir(), key=lambda f: f.name):
        if file.name.endswith(".yaml"):
            with file.open(encoding="utf-8") as lines:
                summary = lines.readline().removeprefix("#").strip()
            name = file.name.removesuffix(".yaml")
            register_builtin("preset", name, f"{__name__}:{name}", summary)


def __getattr__(name: str) -> Any:
    """Return the preset `name` as a mapping."""
    file = resources.files(__package__) / f"{name}.yaml"
    if name.startswith("_") or not file.is_file():
        raise AttributeError(name)
    from palaestra.runs.config import parse_yaml

    return parse_yaml(file.read_text(encoding="utf-8"), name)


register_presets()
