"""Schedules have the values of their closed forms."""

import math
from typing import Any

import pytest

from palaestra.agents.schedules import (
    Schedule,
    Scheduled,
    ScheduleOptions,
    make_schedule,
    remaining,
)
from palaestra.errors import UserError
from palaestra.options import validate

PARTS = [k / 64 for k in range(65)]


def test_a_line_falls_with_what_remains() -> None:
    assert [Schedule("linear")(p) for p in PARTS] == PARTS


def test_a_constant_stays() -> None:
    assert {Schedule("constant")(p) for p in PARTS} == {1.0}


@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize("warmup", [0.0, 0.25])
def test_it_begins_at_one_after_the_warmup_and_ends_at_the_final_factor(
    name: Any, warmup: float
) -> None:
    schedule = Schedule(name, warmup, 0.125)
    assert schedule(1 - warmup) == 1.0
    assert schedule(0.0) == 0.125
    middle = (1 - warmup) / 2
    assert schedule(middle) == pytest.approx((1 + 0.125) / 2, abs=1e-15)


def test_half_a_cosine_wave_is_flat_at_both_ends() -> None:
    schedule = Schedule("cosine", final=0.5)
    for p in PARTS:
        assert schedule(p) == pytest.approx(0.75 - 0.25 * math.cos(math.pi * p), abs=1e-15)


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
def test_the_warmup_rises_in_a_straight_line_from_zero(name: Any) -> None:
    schedule = Schedule(name, 0.25)
    assert [schedule(1 - k / 64) for k in range(16)] == [k / 16 for k in range(16)]


def test_a_warmup_that_is_as_long_as_the_run_only_rises() -> None:
    schedule = make_schedule(ScheduleOptions(name="linear", warmup=500), 100)
    assert [schedule(p) for p in (1.0, 0.5, 0.25, 0.0)] == [0.0, 0.5, 0.75, 1.0]


def test_a_warmup_is_a_share_of_the_run_or_a_number_of_steps() -> None:
    share = make_schedule(ScheduleOptions(name="cosine", warmup=0.05, final=0.1), 1000)
    steps = make_schedule(ScheduleOptions(name="cosine", warmup=50, final=0.1), 1000)
    assert share == steps == Schedule("cosine", 0.05, 0.1)


def test_a_run_without_an_end_has_no_schedule() -> None:
    schedule = make_schedule(ScheduleOptions(name="linear", warmup=0.1), 0)
    assert schedule(remaining(10**9, 0)) == 1.0


def test_what_remains_never_falls_below_zero() -> None:
    assert [remaining(steps, 100) for steps in (0, 25, 100, 130)] == [1.0, 0.75, 0.0, 0.0]


def test_a_value_is_multiplied_by_the_factor() -> None:
    assert Scheduled(0.4, Schedule("linear"))(0.5) == 0.2


def test_a_name_alone_is_enough_and_is_stored_as_it_was_given() -> None:
    assert validate(ScheduleOptions, "linear").model_dump() == "linear"  # type: ignore[arg-type]
    assert ScheduleOptions(name="cosine", warmup=0.1).model_dump() == {
        "name": "cosine",
        "warmup": 0.1,
        "final": 0.0,
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("cubic", "name: 'cubic' is not accepted: input should be 'constant', 'linear' or"),
        ({"name": "linear", "warm": 1}, "warm: unknown key; did you mean 'warmup'"),
        ({"name": "linear", "warmup": -1}, "warmup: -1 is not accepted"),
        ({"name": "constant", "final": 0.1}, "final is for linear and cosine"),
        ({"name": "cosine", "final": math.inf}, "final: inf is not accepted"),
    ],
)
def test_bad_options_are_named(given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate(ScheduleOptions, given)
