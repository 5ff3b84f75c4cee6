"""The stepper: the one piece of code that steps vector environments with an actor.

Training, evaluation and recording stand on it. It asks the actor for the rows that decide, and it
alone knows about autoreset, about actions that last several steps, and about environments that
fail.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from palaestra.agents.base import Actor, Mode
from palaestra.envs.finite import describe_fault, has_floats, not_finite
from palaestra.envs.rows import deciding, final_rows, reset_rows
from palaestra.errors import EnvironmentFailure, NotFiniteError, RunError, UserError
from palaestra.experience.fragment import Tree, map_tree

OnBadTransition = Literal["stop", "drop_episode"]
"""What to do where an observation or a reward is not finite."""


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
    raw_reward: np.ndarray
    """`[N]`, as the environment gave it, before wrappers changed it."""
    terminated: np.ndarray
    """bool `[N]`."""
    truncated: np.ndarray
    """bool `[N]`."""
    done: np.ndarray
    """bool `[N]`: the episode ended with this step."""
    any_done: bool
    """Whether any did."""
    spoiled: np.ndarray | None
    """bool `[N]`: rows of dropped episodes; what they do counts for nothing."""
    info: dict[str, Any]
    """What the environment told."""


class Stepper:
    """Steps N environments; its attributes say where they stand before the next step.

    An environment may say in its info which rows take a new decision next, `decides [N]`; without
    it, all do.

    Args:
      env: any Gymnasium vector environment whose metadata names its autoreset mode.
      actor: acts for the rows that decide.
      rng: the acting stream.
      mode: how the actor acts.
      on_bad_transition: "stop" raises where an observation or a reward is not finite;
        "drop_episode" leaves the row alone until its episode is over.

    Attributes:
      observation: what the rows show, `[N, ...]`.
      reset: the row's next decision is the first of an episode, bool `[N]`.
      decides: rows that take a decision next, bool `[N]`; None means all.
      running: rows in the middle of an action, bool `[N]`; None means none.
      spoiled: rows whose episode is dropped, bool `[N]`; None means none.
      state: the actor's state, batch of N.
      before: the actor's state before each row's latest decision.
      action: the latest action of each row.

    Raises:
      UserError: the environment does not say how it resets, or resets in a way unknown here.
    """

    def __init__(
        self,
        env: VectorEnv,
        actor: Actor,
        rng: np.random.Generator,
        mode: Mode = "sample",
        on_bad_transition: OnBadTransition = "stop",
    ) -> None:
        self.env = env
        self.actor = actor
        self.rng = rng
        self.mode: Mode = mode
        self.on_bad_transition = on_bad_transition
        self.same_step = _resets_in_same_step(env)
        space = env.single_action_space
        self._clip = (space.low, space.high) if isinstance(space, gymnasium.spaces.Box) else None
        self.state = self.before = actor.initial_state(env.num_envs)
        # Rows that do not decide are handed some action; whoever prolongs theirs ignores it.
        self.action = np.zeros_like(np.asarray(env.action_space.sample()))

    def begin(self, seeds: Sequence[int]) -> None:
        """Start an episode in every row, with a seed for each.

        Raises:
          EnvironmentFailure: the environment raised an error.
          NotFiniteError: it shows something that is not finite.
        """
        n = self.env.num_envs
        try:
            self.observation, info = reset_rows(self.env, seeds)
        except (UserError, RunError):
            raise
        except Exception as error:
            raise EnvironmentFailure.of(error, _name(self.env), "reset") from error
        self.reset = np.ones(n, bool)
        self.decides = deciding(info, n) if "decides" in info else None
        self.running: np.ndarray | None = None
        self.spoiled: np.ndarray | None = None
        self._since_reset = np.zeros(n, np.int64)
        self._floats = has_floats(self.observation)
        nothing = np.zeros(n, np.float32)
        if (bad := not_finite(self.observation, nothing)) is not None:
            self._complain(bad, self.observation, nothing)

    def step(self, keep: np.ndarray | None = None) -> Moment:
        """Take one step of every row.

        Args:
          keep: bool `[N]`, rows that are of interest; the others take no decision. None keeps all.

        Raises:
          EnvironmentFailure: the environment raised an error.
          NotFiniteError: an observation or a reward is not finite, and that is to stop.
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
        try:
            self.observation, given, terminated, truncated, info = self.env.step(
                self.action if self._clip is None else np.clip(self.action, *self._clip)
            )
            with np.errstate(over="ignore"):  # what does not fit becomes infinite, which is seen
                reward = np.asarray(given, np.float32)
            done = terminated | truncated
        except (UserError, RunError):
            raise
        except Exception as error:
            raise EnvironmentFailure.of(error, _name(self.env), "step") from error
        any_done = bool(done.any())
        running = decides if decides is None or self.running is None else decides | self.running
        free = deciding(info, len(done)) if "decides" in info else None  # may decide anew
        ended = running if free is None else _both(running, free | done)
        if not self.same_step and any_done:
            free = _both(free, ~done)  # their next step resets them, whatever the action
        self.reset = done if decides is None else (self.reset & ~decides) | done
        self.decides = free
        self.running = None
        if free is not None and ended is not None:
            still = _both(running, ~ended)
            self.running = still if still is not None and still.any() else None
        moment = Moment(
            rows,
            seen,
            action,
            reset,
            extras,
            running,
            ended,
            reward,
            np.asarray(info.get("raw_reward", given)),
            terminated,
            truncated,
            done,
            any_done,
            self.spoiled,
            info,
        )
        self._judge(moment, keep)
        self._since_reset += 1
        if any_done:
            self._since_reset[done] = 0
        return moment

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
        if self.same_step:
            last: Tree = final_rows(moment.info, rows)
        else:
            last = map_tree(lambda x: x[rows], self.observation)
        return last

    def _judge(self, moment: Moment, keep: np.ndarray | None) -> None:
        """Look for numbers that are not finite, and stop or leave their rows alone."""
        n = len(moment.done)
        bad = not_finite(self.observation, moment.reward)
        if moment.any_done and self.same_step and self._floats:
            rows = np.flatnonzero(moment.done)
            final = self.final_observation(moment, rows)
            at_end = not_finite(final, np.zeros(len(rows), np.float32))
            if at_end is not None:
                bad = np.zeros(n, bool) if bad is None else bad
                bad[rows[at_end]] = True
                if self.on_bad_transition == "stop":
                    self._complain(at_end, final, np.zeros(len(rows), np.float32), rows)
        if bad is not None and keep is not None:
            bad &= keep
        if bad is None and self.spoiled is None:
            return
        spoiled = np.zeros(n, bool) if self.spoiled is None else self.spoiled
        fresh = np.zeros(n, bool) if bad is None else bad & ~spoiled
        if fresh.any() and self.on_bad_transition == "stop":
            self._complain(fresh, self.observation, moment.reward)
        whole = ~(spoiled | fresh)
        moment.spoiled = ~whole
        moment.running = _both(moment.running, whole)
        moment.ended = _both(moment.ended, whole)
        self.running = None if self.running is None else self.running & whole
        # An episode that is over spoils nothing any more, unless the next one begins like that.
        left = (~whole & ~moment.done) | (moment.done & self._shows_bad())
        self.spoiled = left if left.any() else None
        if self.spoiled is not None:
            self.decides = _both(self.decides, ~left)

    def _shows_bad(self) -> np.ndarray:
        n = self.env.num_envs
        bad = not_finite(self.observation, np.zeros(n, np.float32))
        return np.zeros(n, bool) if bad is None else bad

    def _complain(
        self,
        bad: np.ndarray,
        observation: Tree,
        reward: np.ndarray,
        rows: np.ndarray | None = None,
    ) -> None:
        index = int(np.flatnonzero(bad)[0])
        row = index if rows is None else int(rows[index])
        raise NotFiniteError(
            f"environment {_name(self.env)}, row {row}, step {self._since_reset[row] + 1} of its "
            f"episode: {describe_fault(index, observation, reward)}; finite numbers (as float32) "
            "are accepted. env.on_bad_transition=drop_episode leaves such episodes out."
        )


def _name(env: VectorEnv) -> str:
    spec = env.spec
    return spec.id if spec is not None else type(env.unwrapped).__name__


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
    result: bool = mode == AutoresetMode.SAME_STEP
    return result
