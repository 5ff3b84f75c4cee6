"""Play whole episodes with an actor and record every step."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv

from palaestra.agents.base import Actor, Mode
from palaestra.envs.rows import reset_rows, step_info
from palaestra.experience.episodes import Episodes

_BOARD_SIZE = 64
"""Observations of more numbers are not recorded."""


def play(
    env: VectorEnv,
    actor: Actor,
    seeds: Sequence[int],
    rng: np.random.Generator,
    mode: Mode,
    info_keys: Sequence[str] = (),
) -> Episodes:
    """Play the first episode of each row.

    One episode a row, fixed in advance: with a shared budget of steps, short episodes would be
    over-represented. What a row plays after its episode is not recorded.

    Args:
      env: N rows.
      actor: acts for all rows at once.
      seeds: one for each row; a seed decides the instance and its rewards.
      rng: the acting stream.
      mode: how the actor acts.
      info_keys: step infos to record where the environment gives them; missing ones are left out.
    """
    observation = reset_rows(env, seeds)
    alive = np.ones(env.num_envs, bool)
    length = np.zeros(env.num_envs, np.int64)
    reset, state = alive.copy(), actor.initial_state(env.num_envs)
    actions: list[np.ndarray] = []
    rewards: list[np.ndarray] = []
    boards = [_board(observation)]
    infos: dict[str, list[np.ndarray | None]] = {key: [] for key in info_keys}
    space = env.single_action_space
    while alive.any():
        action, state, _ = actor.act(observation, state, reset, rng, mode)
        if isinstance(space, gymnasium.spaces.Box):
            action = np.clip(action, space.low, space.high)
        observation, reward, terminated, truncated, info = env.step(action)
        reset = terminated | truncated
        actions.append(action)
        rewards.append(reward)
        for key in info_keys:
            infos[key].append(step_info(info, key, reset))
        boards.append(_true_next(_board(observation), info, reset))
        length += alive
        alive &= ~reset
    return Episodes(
        np.stack(actions, 1),
        np.stack(rewards, 1).astype(np.float64),
        length,
        int(space.n) if isinstance(space, gymnasium.spaces.Discrete) else 0,
        {key: column for key in info_keys if (column := _joined(infos[key])) is not None},
        None if boards[0] is None else np.stack(boards, 1),
    )


def join_turns(turns: Sequence[Episodes], number: int) -> Episodes:
    """Return the first `number` episodes of several turns."""
    T = max(turn.reward.shape[1] for turn in turns)

    def join(arrays: Sequence[np.ndarray]) -> np.ndarray:
        padded = [
            np.pad(a, ((0, 0), (0, T - a.shape[1]), *[(0, 0)] * (a.ndim - 2))) for a in arrays
        ]
        return np.concatenate(padded)[:number]

    return Episodes(
        join([turn.action for turn in turns]),
        join([turn.reward for turn in turns]),
        np.concatenate([turn.length for turn in turns])[:number],
        turns[0].num_actions,
        {key: join([turn.info[key] for turn in turns]) for key in turns[0].info},
        turns[0].boards,  # for the strip, which shows the first episodes only
    )


def _joined(columns: list[np.ndarray | None]) -> np.ndarray | None:
    """Return `[N, T]`, nan where a step told nothing; None if no step told anything."""
    told = [column for column in columns if column is not None]
    if not told:
        return None
    nothing = np.full_like(told[0], np.nan)
    return np.stack([nothing if column is None else column for column in columns], 1)


def _board(observation: Any) -> Any:
    """Return observations that are small and discrete, `[N, ...]`: those of board games."""
    if isinstance(observation, dict):
        observation = observation.get("observation")
    if not isinstance(observation, np.ndarray) or observation.dtype.kind not in "iu":
        return None
    return observation.copy() if observation[0].size <= _BOARD_SIZE else None


def _true_next(board: Any, info: dict[str, Any], done: np.ndarray) -> Any:
    """Return what followed the step; under a same-step autoreset the end is in `final_obs`."""
    if board is None or not done.any() or "final_obs" not in info:
        return board
    final = info["final_obs"]
    if isinstance(final, np.ndarray) and final.dtype == object:  # Gymnasium's own vectorisers
        for row in np.flatnonzero(done):
            board[row] = _board_row(final[row])
        return board
    ends = _board(final)
    return np.where(done.reshape(-1, *[1] * (board.ndim - 1)), ends, board)


def _board_row(observation: Any) -> np.ndarray:
    return observation["observation"] if isinstance(observation, dict) else observation
