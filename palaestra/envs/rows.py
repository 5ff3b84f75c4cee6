"""What every user of a vector environment has to know about its rows: seeds, infos, final ones.

A vector environment may tell in its infos

- `duration [N]`: environment steps that the action which has just ended took (1 where it says
  nothing),
- `decides [N]`: rows that take a new decision next (all where it says nothing),
- `raw_reward [N]`: the reward before wrappers changed it,
- `action_mask [N, A]`: the legal actions of the observation that is returned,

and in its metadata `episode_infos`, a mapping from names of step infos to what an episode's record
holds of them: their "sum", or the "last" one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv

from palaestra.envs.trees import Tree, map_tree, stack_rows
from palaestra.errors import UserError

HOW = ("sum", "last")
"""What a record of an episode may hold of a step info."""


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


def episode_infos(env: gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> dict[str, str]:
    """Return which step infos an episode's record holds, and whether their "sum" or the "last" one.

    It reads `metadata["episode_infos"]`, or else `metadata["episode_sums"]`, a sequence of names
    that are summed.

    Raises:
      UserError: the metadata asks for something else.
    """
    metadata: Mapping[str, Any] = env.metadata or {}
    if "episode_infos" not in metadata:
        return dict.fromkeys(metadata.get("episode_sums", ()), "sum")
    asked = metadata["episode_infos"]
    if not isinstance(asked, Mapping) or not set(asked.values()) <= set(HOW):
        raise UserError(
            f"metadata['episode_infos'] of {env}: {asked!r} is not accepted: a mapping from names "
            f"of infos to {' or '.join(map(repr, HOW))} is."
        )
    return dict(asked)


def summed_infos(env: gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> tuple[str, ...]:
    """Return the step infos that an episode's record holds the sum of."""
    return tuple(name for name, how in episode_infos(env).items() if how == "sum")


def durations(info: dict[str, Any], done: np.ndarray) -> np.ndarray:
    """Return how many environment steps the actions that have just ended took, int32 `[N]`.

    Args:
      info: infos of a step.
      done: rows whose episode it ended, bool `[N]`.
    """
    told = step_info(info, "duration", done)
    if told is None:
        return np.ones(len(done), np.int32)
    # 0 where a row says nothing, or not a number.
    return np.where(told >= 1, told, 1).astype(np.int32)


def deciding(info: dict[str, Any], num_envs: int) -> np.ndarray:
    """Return which rows take a new decision next, bool `[N]`."""
    if "decides" not in info:
        return np.ones(num_envs, bool)
    told = np.asarray(info["decides"], bool)
    result: np.ndarray = told | ~np.asarray(info.get("_decides", np.ones(num_envs, bool)), bool)
    return result


def final_rows(info: dict[str, Any], rows: np.ndarray) -> Tree:
    """Return the final observations of `rows [M]`, whose episodes this step ended, `[M, ...]`.

    Gymnasium gives an object array of observations, native environments a dense tree.
    """
    final = info["final_obs"]
    if isinstance(final, np.ndarray) and final.dtype == object:
        return stack_rows([final[row] for row in rows])
    return map_tree(lambda x: x[rows], final)


def put_final(info: dict[str, Any], rows: np.ndarray, observations: Tree, num_envs: int) -> None:
    """Replace the final observations of `rows [M]` by `observations [M, ...]`, in the same form."""
    final = info["final_obs"]
    if isinstance(final, np.ndarray) and final.dtype == object:
        info["final_obs"] = np.full(num_envs, None, object)
        for m, row in enumerate(rows):
            info["final_obs"][row] = map_tree(lambda x, m=m: x[m], observations)
        return

    def spread(x: np.ndarray) -> np.ndarray:
        dense = np.zeros((num_envs, *x.shape[1:]), x.dtype)
        dense[rows] = x
        return dense

    info["final_obs"] = map_tree(spread, observations)
