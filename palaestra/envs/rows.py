"""What every user of a vector environment has to know about its rows: seeds and step infos."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv


def reset_rows(env: VectorEnv, seeds: Sequence[int]) -> tuple[Any, dict[str, Any]]:
    """Reset every row with its own seed and return the observations and what was told of them.

    Where the environment takes one integer alone, as `VectorEnv` promises and CartPole's native
    version does, the first seed decides all rows.
    """
    try:
        return env.reset(seed=list(seeds))  # type: ignore[arg-type]
    except (gymnasium.error.Error, TypeError):
        return env.reset(seed=seeds[0])


def frames_per_step(env: VectorEnv) -> int:
    """Return how many emulator frames one step takes: 1 unless the metadata says."""
    return int(env.metadata.get("frames_per_step", 1))


def step_info(info: dict[str, Any], name: str, done: np.ndarray) -> np.ndarray | None:
    """Return the info of the step just taken, float64 `[N]`, or None if there is none.

    Under a same-step autoreset the last step of an episode tells its own in `final_info`.
    """
    final = info.get("final_info", {}).get(name) if done.any() else None
    if name not in info and final is None:
        return None
    values = np.asarray(info.get(name, np.full(len(done), np.nan)), np.float64)
    return values if final is None else np.where(done, np.asarray(final, np.float64), values)
