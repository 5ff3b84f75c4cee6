"""Plug-ins as files: the sources of modules and of installed packages with entry points.

Python reads the entry points of a package from a folder `<name>-<version>.dist-info` beside its
sources. With such a folder in a job's working directory the package is plugged in there as well.
"""

import importlib.util
import re
import sysconfig
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from palaestra.errors import UserError

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*")


def module_sources(module: str, *, installed: bool) -> list[Path]:
    """Return file or folder of the top-level package of a module.

    Args:
      module: dotted name.
      installed: also when it is part of this Python installation, which a cluster has to have.
    """
    try:
        spec = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        found = [Path(folder) for folder in spec.submodule_search_locations]
    else:
        found = [Path(spec.origin)] if spec.has_location and spec.origin else []
    return [path for path in found if path.exists() and (installed or not _is_installed(path))]


def plug_ins() -> Iterator[Distribution]:
    """Yield the installed packages, other than Palaestra, that have entry points for it."""
    seen = {"palaestra"}
    for distribution in distributions():
        name = _canonical(distribution.metadata["Name"] or "")
        if name not in seen and _entry_points(distribution):
            yield distribution
        seen.add(name)


def distribution_files(distribution: Distribution) -> tuple[list[Path], dict[str, str]]:
    """Return the sources of a plug-in package, and path -> text of the metadata it is found by.

    A package whose modules cannot be found is broken here and gives nothing.

    Raises:
      UserError: its name or version is not one that a package can have.
    """
    name, version = distribution.metadata["Name"] or "", distribution.version or ""
    if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version):
        raise UserError(
            f"plug-in package {name!r} {version!r}: letters, digits, '.', '_' and '-' are accepted "
            "in names and versions; uninstall it or mend its metadata."
        )
    sources = _sources(distribution)
    if not sources:
        return [], {}
    info = f"{_canonical(name).replace('-', '_')}-{version}.dist-info"
    return sources, {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/entry_points.txt": _entry_points_text(distribution),
    }


def _sources(distribution: Distribution) -> list[Path]:
    """Return the packages that hold the entry points, and the package's others beside them."""
    own = {value.partition(":")[0].partition(".")[0] for _, _, value in _entry_points(distribution)}
    found = {name: module_sources(name, installed=True) for name in own}
    if not all(found.values()):
        return []
    beside = {path.parent for paths in found.values() for path in paths}
    for name in _declared(distribution) - own:
        paths = module_sources(name, installed=True)
        # `tests` may be declared by a package and found in another one.
        if paths and all(path.parent in beside for path in paths):
            found[name] = paths
    return [path for _, paths in sorted(found.items()) for path in paths]


def _declared(distribution: Distribution) -> set[str]:
    """Return the top-level modules that the package says it has."""
    listed = (distribution.read_text("top_level.txt") or "").split()
    files = [file for file in distribution.files or [] if file.suffix == ".py"]
    listed += [file.parts[0].removesuffix(".py") for file in files]
    return {name for name in listed if name.isidentifier() and not name.startswith("__editable__")}


def _entry_points(distribution: Distribution) -> list[tuple[str, str, str]]:
    """Return group, name and value of the entry points for Palaestra."""
    points = distribution.entry_points
    return sorted((p.group, p.name, p.value) for p in points if p.group.startswith("palaestra."))


def _entry_points_text(distribution: Distribution) -> str:
    lines, last = [], ""
    for group, name, value in _entry_points(distribution):
        if group != last:
            lines.append(f"[{group}]")
        lines.append(f"{name} = {value}")
        last = group
    return "\n".join(lines) + "\n"


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _is_installed(path: Path) -> bool:
    places = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return path.is_relative_to(Path(__file__).parents[2]) or any(
        path.is_relative_to(place) or path.resolve().is_relative_to(place) for place in places
    )
