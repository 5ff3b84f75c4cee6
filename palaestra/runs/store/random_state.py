"""The global random generators of this process.

Nothing of Palaestra's own draws from them, but other libraries and plug-ins may. A run seeds them
and stores them, so that it stays repeatable.
"""

import random
from typing import Any

import numpy as np

from palaestra.seeding import Role, integer


def seed_globals(seed: int, *indices: int) -> None:
    """Seed Python's, NumPy's and torch's global generators with streams of the user's seed."""
    import torch

    random.seed(integer(seed, Role.GLOBAL, 0, *indices))
    np.random.seed(integer(seed, Role.GLOBAL, 1, *indices))  # noqa: NPY002
    torch.manual_seed(integer(seed, Role.GLOBAL, 2, *indices))


def global_random_state() -> dict[str, Any]:
    """Return the state of Python's, NumPy's and torch's global generators."""
    import torch

    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    return {
        "python": {"version": version, "internal": np.array(internal, np.uint64), "gauss": gauss},
        "numpy": {
            "name": str(name),
            "keys": np.asarray(keys),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "torch": torch.get_rng_state(),
    }


def set_global_random_state(state: dict[str, Any]) -> None:
    """Set the generators to what `global_random_state` returned."""
    import torch

    python, numpy = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(int(x) for x in python["internal"]), python["gauss"]))
    np.random.set_state(  # noqa: NPY002
        (
            numpy["name"],
            np.asarray(numpy["keys"], np.uint32),
            numpy["position"],
            numpy["has_gauss"],
            numpy["cached"],
        )
    )
    torch.set_rng_state(torch.as_tensor(state["torch"], dtype=torch.uint8))
