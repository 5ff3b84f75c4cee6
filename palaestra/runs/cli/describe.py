"""What `palaestra describe` shows of a registered thing."""

import inspect
from dataclasses import asdict, is_dataclass
from typing import Any

import yaml

from palaestra.options import options_of
from palaestra.registry import Entry


def describe_entry(entry: Entry) -> dict[str, Any]:
    """Return name, origin, documentation and options of an entry, importing it.

    A preset shows its configuration, a suite its protocol and tasks, everything else its options.
    """
    thing = entry.load()
    description: dict[str, Any] = {
        "kind": entry.kind,
        "name": entry.name,
        "origin": entry.origin,
        "summary": entry.summary,
    }
    if entry.kind == "preset":
        return description | {"config": dict(thing)}
    if is_dataclass(thing) and not isinstance(thing, type):
        return description | {"fields": asdict(thing)}
    return description | {
        "documentation": inspect.getdoc(thing) or "",
        "options": [asdict(option) for option in options_of(thing)] if callable(thing) else [],
    }


def print_description(description: dict[str, Any]) -> None:
    """Print a description for people to read."""
    print(f"{description['kind']} {description['name']} (from {description['origin']})")
    if description["summary"]:
        print(f"  {description['summary']}")
    for part in ("config", "fields"):
        if part in description:
            print()
            print(yaml.safe_dump(_plain(description[part]), sort_keys=False, allow_unicode=True))
            return
    if description["documentation"]:
        print(f"\n{description['documentation']}")
    if description["options"]:
        print("\nOptions:")
        for option in description["options"]:
            default = "required" if option["required"] else f"default {option['default']!r}"
            print(f"  {option['name']}: {option['type']} ({default})")
            if option["help"]:
                print(f"      {option['help']}")


def _plain(value: Any) -> Any:
    """Return nested tuples and mappings as lists and dicts, which safe YAML can write."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list | frozenset):
        return [_plain(inner) for inner in value]
    return value
