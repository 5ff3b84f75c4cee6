"""Shared by all tests: one torch thread and one Ray for each test process."""

from collections.abc import Iterator

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local Ray that all tests of one process share."""
    import ray

    from palaestra.runs.ray_rollouts import connect

    connect(None, 2)
    yield
    ray.shutdown()
