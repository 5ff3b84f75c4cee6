"""Registry: names -> things, filled by decorators, by the rooms themselves and by entry points.

A package plugs in by declaring an entry point, for example

    [project.entry-points."palaestra.policies"]
    my-policy = "my_package.policy:MyPolicy"

and a module that the run imports (`plugins: [my_module]`) plugs in with a decorator:

    @register("policy", "my-policy")
    class MyPolicy(SequencePolicy): ...

Names, never class paths, enter configurations and checkpoints. Listing reads names; a built-in is
imported only when it is used.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, TypeVar

from palaestra.errors import UserError, did_you_mean

KINDS = ("env", "wrapper", "policy", "agent", "optimizer", "suite", "metric", "preset")
"""The kinds of things that have names."""

_PLURALS = {kind: kind + "s" for kind in KINDS} | {"policy": "policies"}

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """One registered name: `target` is the thing itself, or "module:attribute" until it is used."""

    kind: str
    name: str
    target: object
    origin: str
    summary: str = ""

    def load(self) -> Any:
        """Return the thing, importing its module when that has not happened yet.

        Raises:
          UserError: the module fails at import or lacks the attribute; the cause is chained.
        """
        if not isinstance(self.target, str):
            return self.target
        module, _, attribute = self.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except Exception as error:
            raise UserError(
                f"{self.kind} {self.name!r} from {self.origin} ({self.target}) fails at import: "
                f"{type(error).__name__}: {error}"
            ) from error


class Registry:
    """Names of one process, by kind; a name taken twice is an error that names both origins.

    Args:
      rooms: modules that register names when they are imported; imported at the first look-up.
    """

    def __init__(self, rooms: tuple[str, ...] = ()) -> None:
        self._entries: dict[str, dict[str, Entry]] = {kind: {} for kind in KINDS}
        self._rooms = rooms
        self._complete = False

    def add(self, entry: Entry) -> None:
        """Add an entry.

        Raises:
          UserError: the kind is unknown, or the name is taken by another thing.
        """
        names = self._entries[check_kind(entry.kind)]
        taken = names.get(entry.name)
        if taken is not None and not _same(taken, entry):
            raise UserError(
                f"{entry.kind} {entry.name!r} is registered twice: "
                f"by {taken.origin} and by {entry.origin}; rename one of them."
            )
        names[entry.name] = entry

    def get(self, kind: str, name: str) -> Any:
        """Return the thing registered under `name`.

        Raises:
          UserError: unknown kind or name (the nearest names are listed), or a failing import.
        """
        return self.entry(kind, name).load()

    def entry(self, kind: str, name: str) -> Entry:
        """Return the entry of `name` without importing the thing itself."""
        known = self.entries(kind)
        if name not in known:
            raise UserError(f"unknown {kind} {name!r}: {did_you_mean(name, known)}")
        return known[name]

    def entries(self, kind: str) -> dict[str, Entry]:
        """Return all entries of a kind, sorted by name."""
        self._complete_names()
        return dict(sorted(self._entries[check_kind(kind)].items()))

    def _complete_names(self) -> None:
        """Read the names of the rooms and of installed plug-ins, once, when they are asked for."""
        if self._complete:
            return
        self._complete = True
        for room in self._rooms:
            importlib.import_module(room)
        for kind in KINDS:
            for point in entry_points(group=f"palaestra.{_PLURALS[kind]}"):
                package = point.dist.name if point.dist else "an installed package"
                self.add(Entry(kind, point.name, point.value, f"package {package}"))


def _same(one: Entry, other: Entry) -> bool:
    """Whether two entries are one thing seen twice, e.g. entry point and decorator of one class."""
    return _path(one.target) == _path(other.target)


def _path(target: object) -> str:
    if isinstance(target, str):
        return target
    return f"{getattr(target, '__module__', '')}:{getattr(target, '__qualname__', repr(target))}"


def check_kind(kind: str) -> str:
    """Return `kind` if it is one.

    Raises:
      UserError: it is not.
    """
    if kind not in KINDS:
        raise UserError(f"unknown kind {kind!r}: {did_you_mean(kind, KINDS)}")
    return kind


registry = Registry(
    # By name, because an import here would climb the floors.
    rooms=(
        "palaestra.envs",
        "palaestra.policies",
        "palaestra.agents",
        "palaestra.metrics",
        "palaestra.runs.presets",
    )
)
"""The registry of this process."""


def register(kind: str, name: str, *, summary: str = "") -> Callable[[T], T]:
    """Register the decorated class or function as `name`; its docstring gives the summary."""

    def decorate(thing: T) -> T:
        first_line = (getattr(thing, "__doc__", None) or "").strip().partition("\n")[0]
        origin = f"module {getattr(thing, '__module__', '?')}"
        registry.add(Entry(kind, name, thing, origin, summary or first_line))
        return thing

    return decorate


def register_builtin(kind: str, name: str, target: object, summary: str) -> None:
    """Register a thing of Palaestra's own; `target` may be "module:attribute", imported on use."""
    registry.add(Entry(kind, name, target, "palaestra", summary))
