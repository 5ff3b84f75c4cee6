"""Kill tests with Ray workers, on a cluster that outlives the processes that are killed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from palaestra.runs.store.checkpoints import load_checkpoint
from tests.runs.jobs.ray_head import Head, ray_head
from tests.runs.survival import (
    RAY_KILLS,
    assert_same_tree,
    config_of,
    finish,
    kill_at_random,
    start,
    untimed,
)


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
