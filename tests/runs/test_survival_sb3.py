"""Kill tests of Stable-Baselines3's agents: resumed, a run is as if it was never killed."""

from pathlib import Path

import pytest

from tests.runs.survival import (
    KILLS,
    SB3_CONFIGS,
    assert_same_run,
    config_of,
    finish,
    kill_at_random,
    start,
)


@pytest.mark.parametrize("name", SB3_CONFIGS)
def test_a_run_killed_at_ten_random_moments_equals_the_straight_run(
    name: str, tmp_path: Path
) -> None:
    assert kill_at_random(config_of(name), KILLS, tmp_path) == KILLS


@pytest.mark.parametrize("name", SB3_CONFIGS)
def test_the_same_seed_gives_the_same_run_twice(name: str, tmp_path: Path) -> None:
    for run_id in ("one", "two"):
        finish(start(config_of(name), run_id, tmp_path))
    assert_same_run(tmp_path / "one", tmp_path / "two")
