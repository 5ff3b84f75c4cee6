"""Names: unknown, taken, broken and lazy."""

import pytest

from palaestra.errors import UserError
from palaestra.registry import Entry, Registry


def entry(name: str, target: object = "json:dumps", origin: str = "here") -> Entry:
    return Entry("policy", name, target, origin)


def test_a_lazy_entry_is_imported_on_use_only() -> None:
    names = Registry()
    names.add(entry("late", "a_module_that_is_missing:Thing", "package broken"))
    assert "late" in names.entries("policy")
    with pytest.raises(UserError, match=r"'late' from package broken .* fails at import"):
        names.get("policy", "late")


def test_an_unknown_name_lists_the_nearest_ones() -> None:
    names = Registry()
    names.add(entry("gru"))
    names.add(entry("attention"))
    with pytest.raises(UserError, match="unknown policy 'attentoin': did you mean 'attention'"):
        names.get("policy", "attentoin")


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UserError, match="unknown kind 'polizy': did you mean 'policy'"):
        Registry().entries("polizy")


def test_a_name_taken_twice_names_both_origins() -> None:
    names = Registry()
    names.add(entry("mine", origin="package one"))
    with pytest.raises(UserError, match="twice: by package one and by package two"):
        names.add(entry("mine", "json:loads", "package two"))


def test_one_thing_may_be_seen_twice() -> None:
    import json

    names = Registry()
    names.add(entry("dumps", "json:dumps"))
    names.add(entry("dumps", json.dumps))
    assert names.get("policy", "dumps") is json.dumps
