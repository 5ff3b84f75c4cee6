"""The stepper: the one piece of code that steps vector environments with an actor.

Training, evaluation and recording stand on it. It asks the actor for the rows that decide, and it
alone knows about autoreset and about actions that last several steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from palaestra.agents.base import Actor, Mode
from palaestra.envs.rows import reset_rows
from palaestra.errors import UserError
from palaestra.experience.fragment import Tree, map_tree


@dataclass
class Moment:
    """One step of all rows.

    A row that was asked for an action at this step has `decided`; one whose action ended with this
    step, because it ran its course or the episode is over, has `ended`. None stands for all rows.
    """

    decided: np.ndarray | None
    """Rows `[D]` that chose an action."""
    observation: Tree
    """`[D, ...]`, what they saw."""
    action: np.ndarray
    """`[D, ...]`, what they chose."""
    reset: np.ndarray
    """bool `[D]`: it was the first decision of an episode."""
    extras: dict[str, np.ndarray]
    """`[D, ...]`, what the actor noted."""
    running: np.ndarray | None
    """bool `[N]`: rows in which an action was carried out; a reset by itself is none."""
    ended: np.ndarray | None
    """bool `[N]`: rows whose action ended."""
    reward: np.ndarray
    """float32 `[N]`."""
    terminated: np.ndarray
    """bool `[N]`."""
    truncated: np.ndarray
    """bool `[N]`."""
    done: np.ndarray
    """bool `[N]`: the episode ended with this step."""
    any_done: bool
    """Whether any did."""
    info: dict[str, Any]
    """What the environment told."""


class Stepper:
    """Steps N environments; its attributes say where they stand before the next step.

    An environment may say in its info: `decides [N]`, the rows that take a new decision next
    (without it, all do), and `duration [N]`, the environment steps of the action that has just
    ended (without it, its steps are counted).

    Args:
      env: any Gymnasium vector environment whose metadata names its autoreset mode.
      actor: acts for the rows that decide.
      rng: the acting stream.
      mode: how the actor acts.

    Attributes:
      observation: what the rows show, `[N, ...]`.
      reset: the row's next decision is the first of an episode, bool `[N]`.
      decides: rows that take a decision next, bool `[N]`; None means all.
      running: rows in the middle of an action, bool `[N]`; None means none.
      state: the actor's state, batch of N.
      before: the actor's state before each row's latest decision.

    Raises:
      UserError: the environment does not say how it resets, or resets in a way unknown here.
    """

    def __init__(
        self, env: VectorEnv, actor: Actor, rng: np.random.Generator, mode: Mode = "sample"
    ) -> None:
        self.env = env
        self.actor = actor
        self.rng = rng
        self.mode: Mode = mode
        self.same_step = _resets_in_same_step(env)
        space = env.single_action_space
        self._clip = (space.low, space.high) if isinstance(space, gymnasium.spaces.Box) else None
        self.state = self.before = actor.initial_state(env.num_envs)
        # What is handed to rows that do not decide; whoever prolongs an action ignores it.
        self.action = np.zeros_like(env.action_space.sample())

    def begin(self, seeds: Sequence[int]) -> None:
        """Start an episode in every row, with a seed for each."""
        self.observation, info = reset_rows(self.env, seeds)
        self.reset = np.ones(self.env.num_envs, bool)
        told = info.get("decides")
        self.decides = None if told is None else np.asarray(told, bool)
        self.running: np.ndarray | None = None

    def step(self, keep: np.ndarray | None = None) -> Moment:
        """Take one step of every row.

        Args:
          keep: bool `[N]`, rows that are of interest; the others take no decision. None keeps all.
        """
        decides = self.decides if keep is None or keep.all() else _both(self.decides, keep)
        seen, reset, rows = self.observation, self.reset, None
        if decides is None:
            self.before = self.state
            self.action, self.state, extras = self.actor.act(
                seen, self.state, reset, self.rng, self.mode
            )
            action = self.action
        else:
            rows = np.flatnonzero(decides)
            seen, reset = map_tree(lambda x: x[rows], seen), reset[rows]
            action, extras = self.action[rows], {}
            if len(rows):
                action, extras = self._act_for(rows, seen, reset)
        self.observation, reward, terminated, truncated, info = self.env.step(
            self.action if self._clip is None else np.clip(self.action, *self._clip)
        )
        done = terminated | truncated
        any_done = bool(done.any())
        told = info.get("decides")
        free = None if told is None else np.asarray(told, bool)  # may decide anew
        running = decides if decides is None or self.running is None else decides | self.running
        ended = running if free is None else _both(running, free | done)
        if not self.same_step and any_done:
            free = _both(free, ~done)  # their next step resets them, whatever the action
        self.reset = done if decides is None else (self.reset & ~decides) | done
        self.decides = free
        self.running = None
        if free is not None and ended is not None:
            still = _both(running, ~ended)
            self.running = still if still is not None and still.any() else None
        return Moment(
            rows,
            seen,
            action,
            reset,
            extras,
            running,
            ended,
            np.asarray(reward, np.float32),
            terminated,
            truncated,
            done,
            any_done,
            info,
        )

    def _act_for(
        self, rows: np.ndarray, seen: Tree, reset: np.ndarray
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Ask the actor for some rows alone."""
        mine = self.state.rows(rows)
        action, after, extras = self.actor.act(seen, mine, reset, self.rng, self.mode)
        self.before, self.state = self.before.put(rows, mine), self.state.put(rows, after)
        self.action = self.action.copy()
        self.action[rows] = action
        return action, extras

    def final_observation(self, moment: Moment, rows: np.ndarray) -> Tree:
        """Return the true last observations of rows whose episode ended with `moment`."""
        if not self.same_step:
            return map_tree(lambda x: x[rows], self.observation)
        final = moment.info["final_obs"]
        # Gymnasium gives an object array of observations, native environments a dense tree.
        if isinstance(final, np.ndarray) and final.dtype == object:
            return map_tree(lambda *x: np.stack(x), *(final[row] for row in rows))
        return map_tree(lambda x: x[rows], final)


def _both(one: np.ndarray | None, other: np.ndarray) -> np.ndarray:
    """Return the rows in both masks; None stands for all."""
    return other if one is None else one & other


def _resets_in_same_step(env: VectorEnv) -> bool:
    mode = env.metadata.get("autoreset_mode")
    if mode not in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP):
        raise UserError(
            f"vector environment {env!r}: metadata['autoreset_mode'] is {mode!r}; "
            "accepted: AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP."
        )
    return mode == AutoresetMode.SAME_STEP
