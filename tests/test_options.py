"""Options: every wrong field is named with its value and what is accepted."""

from typing import Literal

import pytest
from pydantic import Field

from palaestra.errors import UserError
from palaestra.options import Options, options_of, validate


class Inner(Options):
    rate: float = Field(0.1, gt=0, description="how fast")
    kind: Literal["slow", "fast"] = "slow"


class Outer(Options):
    inner: Inner = Inner()
    size: int


def test_every_wrong_field_is_named_with_its_value() -> None:
    with pytest.raises(UserError) as caught:
        validate(Outer, {"inner": {"rat": 1, "rate": -1, "kind": "fats"}, "size": "many"}, "top")
    message = str(caught.value)
    assert "top.inner.rat: unknown key; did you mean 'rate'?" in message
    assert "top.inner.rate: -1 is not accepted: input should be greater than 0." in message
    assert "top.inner.kind: 'fats' is not accepted: input should be 'slow' or 'fast'." in message
    assert "top.size: 'many' is not accepted" in message


def test_a_missing_field_is_named() -> None:
    with pytest.raises(UserError, match="size: required but not given"):
        validate(Outer, {})


def test_options_of_a_model_show_types_defaults_bounds_and_help() -> None:
    class Thing:
        Config = Inner

    rate, kind = options_of(Thing)
    assert (rate.name, rate.type, rate.default, rate.help) == (
        "rate",
        "float",
        0.1,
        "how fast (> 0)",
    )
    assert kind.type == "'slow' | 'fast'"


def test_options_of_a_class_come_from_its_signature_and_docstring() -> None:
    class Env:
        """An environment.

        Args:
          size: number of arms,
            at least one.
          noise: standard deviation.
        """

        def __init__(self, size: int = 5, noise: float | None = None) -> None: ...

    size, noise = options_of(Env)
    assert (size.help, size.default) == ("number of arms, at least one.", 5)
    assert (noise.type, noise.help) == ("float | None", "standard deviation.")
