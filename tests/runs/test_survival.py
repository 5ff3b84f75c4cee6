"""Kill tests: a run that was killed and resumed leaves what an undisturbed one leaves."""

from pathlib import Path

import pytest

from palaestra.runs.store.checkpoints import Checkpoints
from palaestra.runs.store.folder import RunFolder
from tests.runs.survival import (
    KILLS,
    OWN_CONFIGS,
    assert_same_run,
    config_of,
    finish,
    kill_at_random,
    killed,
    start,
    straight,
)


@pytest.mark.parametrize("name", OWN_CONFIGS)
def test_a_run_killed_at_ten_random_moments_equals_the_straight_run(
    name: str, tmp_path: Path
) -> None:
    assert kill_at_random(config_of(name), KILLS, tmp_path) == KILLS


@pytest.mark.parametrize("name", OWN_CONFIGS)
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


def test_a_run_killed_between_a_checkpoint_and_its_pointers_keeps_its_best(tmp_path: Path) -> None:
    config = config_of(
        "q-learning",
        "total_steps=480",
        "checkpoint.every=32",
        "checkpoint.best=rollout/return",
        "checkpoint.keep_last=1",
        "checkpoint.keep_every=4",
    )
    straight(config, "straight", tmp_path)
    whole = Checkpoints(tmp_path / "straight" / "checkpoints")
    pointers = 0
    while True:  # until the run makes no such pointer any more
        run_id = f"dies-at-{pointers + 1}"
        process = start(config, run_id, tmp_path, dies_at=pointers + 1, operations=["point_to"])
        process.join(timeout=120)
        if process.exitcode == 0:
            break
        assert process.exitcode == -9
        finish(start(config, run_id, tmp_path))
        assert_same_run(tmp_path / "straight", tmp_path / run_id)
        store = Checkpoints(tmp_path / run_id / "checkpoints")
        assert (store.names(), store.best) == (whole.names(), whole.best)
        assert (store.folder / "best").read_text() == store.best
        pointers += 3  # every third, to take a third of the time
    assert pointers > 10


def test_the_manifest_tells_of_every_attempt(tmp_path: Path) -> None:
    config = config_of("q-learning", "checkpoint.every=96")
    seconds = straight(config, "straight", tmp_path)
    kills = killed(config, "killed", tmp_path, [seconds * 0.8])
    attempts = RunFolder.open("killed", tmp_path).manifest["attempts"]
    reasons = [attempt["reason"] for attempt in attempts]
    assert reasons == ["killed"] * (len(attempts) - 1) + ["succeeded"]
    assert len(attempts) <= kills + 1
