"""Play whole episodes with an actor and record every step."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv

from palaestra.agents.base import Actor, Mode
from palaestra.envs.rows import step_info
from palaestra.experience.episodes import Episodes
from palaestra.experience.fragment import map_tree
from palaestra.runs.rollouts.stepper import Moment, Stepper

_BOARD_SIZE = 64
"""Observations of more numbers are not recorded unless that is asked for."""


def play(
    env: VectorEnv,
    actor: Actor,
    seeds: Sequence[int],
    rng: np.random.Generator,
    mode: Mode,
    info_keys: Sequence[str] = (),
    record: int = 0,
) -> Episodes:
    """Play the first episode of each row.

    One episode a row, fixed in advance: with a shared budget of steps, short episodes would be
    over-represented. The actor is not asked for rows whose episode has ended.

    Args:
      env: N rows.
      actor: acts for the rows that decide.
      seeds: one for each row; a seed decides the instance and its rewards.
      rng: the acting stream.
      mode: how the actor acts.
      info_keys: step infos to record where the environment gives them; missing ones are left out.
      record: rows whose observations are kept.
    """
    stepper = Stepper(env, actor, rng, mode)
    stepper.begin(seeds)
    alive = np.ones(env.num_envs, bool)
    length = np.zeros(env.num_envs, np.int64)
    actions: list[np.ndarray] = []
    rewards: list[np.ndarray] = []
    boards = [_board(stepper.observation)]
    kept = [_rows(stepper.observation, record)] if record else []
    infos: dict[str, list[np.ndarray | None]] = {key: [] for key in info_keys}
    space = env.single_action_space
    while alive.any():
        moment = stepper.step(keep=alive)
        actions.append(stepper.action)
        rewards.append(moment.raw_reward.astype(np.float64))
        for key in info_keys:
            infos[key].append(step_info(moment.info, key, moment.done))
        boards.append(_true_next(_board(stepper.observation), stepper, moment))
        if record:
            kept.append(_true_next(_rows(stepper.observation, record), stepper, moment, record))
        length += alive if moment.running is None else alive & moment.running
        alive &= ~moment.done
    action = np.stack(actions, 1)
    if isinstance(space, gymnasium.spaces.Box):
        action = np.clip(action, space.low, space.high)
    return Episodes(
        action,
        np.stack(rewards, 1),
        length,
        int(space.n) if isinstance(space, gymnasium.spaces.Discrete) else 0,
        {key: column for key in info_keys if (column := _joined(infos[key])) is not None},
        None if boards[0] is None else np.stack(boards, 1),
        map_tree(lambda *x: np.stack(x, 1), *kept) if record else None,
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
        turns[0].boards,  # for the trace, which shows the first episodes only
        turns[0].observations,
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


def _rows(observation: Any, count: int) -> Any:
    return map_tree(lambda x: np.copy(x[:count]), observation)


def _true_next(shown: Any, stepper: Stepper, moment: Moment, count: int | None = None) -> Any:
    """Return what followed the step: where an episode ended, its true last observation.

    Args:
      shown: what `_board` or `_rows` gave of the observation; changed in place.
      stepper: after the step.
      moment: the step.
      count: the first rows that are kept; None means a board of every row.
    """
    if shown is None or not moment.any_done:
        return shown
    rows = np.flatnonzero(moment.done[:count])
    if not len(rows):
        return shown
    final = stepper.final_observation(moment, rows)
    if count is None and isinstance(final, dict):
        final = final["observation"]
    map_tree(lambda x, y: x.__setitem__(rows, y), shown, final)
    return shown
