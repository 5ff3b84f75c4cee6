"""Shared by all tests: one torch thread, registered names, and one Ray for each test process."""

from collections.abc import Iterator

import pytest
import torch

import palaestra.runs  # noqa: F401 - registers every name

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local Ray that all tests of one process share."""
    import ray

    from palaestra.runs.ray_rollouts import connect

    connect(None, 2)
    yield
    ray.shutdown()
