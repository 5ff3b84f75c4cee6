"""Shared by all tests: one torch thread and one Ray for each test process."""

import os
import shutil
import tempfile
from collections.abc import Iterator

# Read when triton is imported, which torch may do: without a GPU the kernels run on the CPU.
if shutil.which("nvidia-smi") is None:
    os.environ.setdefault("TRITON_INTERPRET", "1")
# Read when numpy and torch are imported, by the processes that tests start too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)

# The key that marks a user's own runs is not the tester's, and is not left behind.
_state = tempfile.TemporaryDirectory()
os.environ["XDG_STATE_HOME"] = _state.name


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local Ray that all tests of one process share."""
    import ray

    from palaestra.runs.rollouts.remote import connect

    connect(None, 2)
    yield
    ray.shutdown()
