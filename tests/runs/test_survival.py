"""Kill tests: a run that was killed and gone on with leaves what an undisturbed one leaves."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palaestra.runs.checkpoint import load_checkpoint
from palaestra.runs.config import RunConfig
from palaestra.runs.folder import RunFolder
from tests.runs.jobs.ray_head import Head, ray_head
from tests.runs.survival import (
    CONFIGS,
    assert_same_run,
    assert_same_tree,
    config_of,
    finish,
    killed,
    start,
    straight,
    untimed,
)

KILLS = 10
RAY_KILLS = int(os.environ.get("PALAESTRA_TEST_RAY_KILLS", "3"))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_run_killed_at_ten_random_moments_equals_the_straight_run(
    name: str, tmp_path: Path
) -> None:
    assert kill_at_random(config_of(name), KILLS, tmp_path) == KILLS


def kill_at_random(config: RunConfig, kills: int, root: Path, **options: Any) -> int:
    """Kill runs at random moments until there were so many kills, and return their number.

    Each run is gone on with until it ends, and equals the straight run.
    """
    seconds = straight(config, "straight", root, **options)
    rng = np.random.default_rng(0)
    left, runs = kills, 0
    while left > 0:
        runs += 1
        assert runs < 40, "the runs end before they are killed"
        # Several kills in the course of one run, the first of them anywhere.
        lives = rng.uniform(0, [seconds, seconds / 2, seconds / 2])[:left]
        struck = killed(config, f"killed-{runs}", root, lives, **options)
        seconds = seconds if struck else seconds / 2  # the machine has become faster
        left -= struck
        assert_same_run(root / "straight", root / f"killed-{runs}", ray=bool(options))
    return kills - left


@pytest.mark.parametrize("name", CONFIGS)
def test_the_same_seed_gives_the_same_run_twice(name: str, tmp_path: Path) -> None:
    for run_id in ("one", "two"):
        finish(start(config_of(name), run_id, tmp_path))
    assert_same_run(tmp_path / "one", tmp_path / "two")


def test_a_run_killed_at_any_operation_of_a_checkpoint_equals_the_straight_run(
    tmp_path: Path,
) -> None:
    config = config_of("q-learning", "total_steps=480", "checkpoint.every=96")
    straight(config, "straight", tmp_path)
    died, operation = 0, 1
    while True:  # until an operation is asked for that the run does not come to
        run_id = f"dies-at-{operation}"
        process = start(config, run_id, tmp_path, dies_at=operation)
        process.join(timeout=120)
        if process.exitcode == 0:
            break
        assert process.exitcode == -9
        died += 1
        finish(start(config, run_id, tmp_path))
        assert_same_run(tmp_path / "straight", tmp_path / run_id)
        assert not list((tmp_path / run_id / "checkpoints").glob(".tmp-*"))
        operation += 4  # every fourth, to take a quarter of the time
    assert died > 10


def test_the_manifest_tells_of_every_attempt(tmp_path: Path) -> None:
    config = config_of("q-learning", "checkpoint.every=96")
    seconds = straight(config, "straight", tmp_path)
    kills = killed(config, "killed", tmp_path, [seconds * 0.8])
    attempts = RunFolder.open("killed", tmp_path).manifest["attempts"]
    reasons = [attempt["reason"] for attempt in attempts]
    assert reasons == ["killed"] * (len(attempts) - 1) + ["succeeded"]
    assert len(attempts) <= kills + 1


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A Ray cluster that outlives the processes that are killed."""
    with ray_head() as found:
        yield found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ppo-gru", "ppo-mlp", "q-learning"])
def test_a_run_with_ray_workers_killed_at_random_moments_equals_the_straight_run(
    name: str, tmp_path: Path, head: Head
) -> None:
    config = config_of(name, rollout__workers=2, rollout__address=head.driver_address)
    kills = kill_at_random(config, RAY_KILLS, tmp_path, environment=head.environment)
    assert kills == RAY_KILLS


@pytest.mark.slow
def test_ray_workers_and_workers_in_this_process_leave_the_same_run(
    tmp_path: Path, head: Head
) -> None:
    for backend in ("local", "ray"):
        config = config_of(
            "ppo-gru",
            f"rollout.backend={backend}",
            rollout__workers=2,
            rollout__address=head.driver_address,
        )
        finish(start(config, backend, tmp_path, environment=head.environment))
    assert untimed(tmp_path / "local") == untimed(tmp_path / "ray")
    weights = [load_checkpoint(tmp_path / b / "checkpoints", ("actor",)) for b in ("local", "ray")]
    assert_same_tree(*weights)
