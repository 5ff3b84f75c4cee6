"""The collector: packs what a stepper sees into fragments.

The same class runs in-process and inside Ray actors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from palaestra.agents.base import Actor
from palaestra.agents.loop import EpisodeBatch, join_episodes
from palaestra.envs.rows import durations, episode_infos, step_info
from palaestra.envs.state import get_state, is_restorable, set_state
from palaestra.experience.fragment import Fragment, Tree, map_tree
from palaestra.experience.state import State, concatenate
from palaestra.runs.rollouts.stepper import Moment, OnBadTransition, Stepper
from palaestra.seeding import Role, integer


class Collector:
    """Turns a vector environment and an actor into packed fragments.

    Args:
      env: any Gymnasium vector environment whose metadata names its autoreset mode.
      actor: acts for the rows that decide.
      rng: the acting stream.
      seeds: one seed for each environment; they decide every episode.
      first_env: global index of the first row, for episode records.
      resets: reset the environments at checkpoints even if they could give their state.
      infos: names of step infos that fragments hold.
      on_bad_transition: see `Stepper`; what came before the fault in a dropped episode is kept.

    Attributes:
      dropped: episodes that were dropped because something in them was not finite.

    Raises:
      UserError: the environment does not say how it resets, or resets in a way unknown here.
    """

    def __init__(
        self,
        env: VectorEnv,
        actor: Actor,
        rng: np.random.Generator,
        seeds: Sequence[int],
        first_env: int = 0,
        resets: bool = False,
        infos: Sequence[str] = (),
        on_bad_transition: OnBadTransition = "stop",
    ) -> None:
        self.env = env
        self.actor = actor
        self.rng = rng
        self.first_env = first_env
        self.stepper = Stepper(env, actor, rng, on_bad_transition=on_bad_transition)
        self._how = episode_infos(env)
        self.sum_names: tuple[str, ...] = tuple(self._how)
        self.infos = tuple(infos)
        self.restores_environments = not resets and is_restorable(env)
        self.dropped = 0
        self._seeds = seeds
        self._resets = 0
        self._begin(seeds)

    def _begin(self, seeds: Sequence[int]) -> None:
        """Start an episode in every row."""
        self.stepper.begin(seeds)
        self._open: _Entries | None = None  # of actions that are still running
        n = self.env.num_envs
        self._reward = np.zeros(n, np.float32)  # of the running action, so far
        self._duration = np.zeros(n, np.int32)
        self._told = {name: np.zeros(n, np.float64) for name in self.infos}
        self._return = np.zeros(n, np.float64)
        self._length = np.zeros(n, np.int64)
        self._sums = {name: np.zeros(n, np.float64) for name in self.sum_names}

    def reset_environments(self) -> None:
        """Cut every episode short and start others; the cut ones are not recorded."""
        self._resets += 1
        self._begin([integer(seed, Role.ENV, self._resets) for seed in self._seeds])

    def collect(self, steps: int) -> tuple[Fragment, EpisodeBatch]:
        """Step every environment `steps` times and return the decisions whose actions ended."""
        stepper, n = self.stepper, self.env.num_envs
        running = stepper.running
        start = stepper.state
        if running is not None:
            start = start.put(running, stepper.before.rows(running))
        entries = _Entries(steps, n, stepper.observation, self.infos)
        if self._open is not None and running is not None:
            entries.reopen(self._open, running)
        finals: list[_Final] = []
        batches: list[EpisodeBatch] = []
        for t in range(steps):
            spoiled = stepper.spoiled
            moment = stepper.step()
            entries.open(t, moment)
            self._close(entries, t, moment)
            if moment.spoiled is not None:
                fresh = moment.spoiled if spoiled is None else moment.spoiled & ~spoiled
                finals.append(self._drop(entries, np.flatnonzero(fresh)))
            if moment.any_done:
                batches.append(self._end_episodes(moment))
                # An episode that ends before its first decision leaves nothing to learn from.
                rows = np.flatnonzero(_within(moment.done, moment.running))
                if len(rows):
                    finals.append(self._final(entries, rows, moment))
        running = stepper.running
        self._open = None if running is None else entries.still_open(running)
        fragment = entries.fragment(start, stepper.action)
        self._look_ahead(fragment, finals)
        return fragment, join_episodes(batches, self.sum_names)

    def _close(self, entries: "_Entries", t: int, moment: Moment) -> None:
        """Write what the actions brought that ended with this step, and count for the episodes."""
        reward, done, info, running = moment.reward, moment.done, moment.info, moment.running
        given = durations(info, done) if "duration" in info else None
        told = {name: step_info(info, name, done) for name in self.infos}
        if moment.ended is None and entries.uniform:
            duration = 1 if given is None else given
            entries.close(t, moment, reward, duration, told)
            self._length += duration
        else:
            on = np.ones(len(done), bool) if running is None else running
            self._reward += np.where(on, reward, 0)
            self._duration += on
            for name, value in told.items():
                former = self._told[name] if self._how.get(name) == "sum" else 0
                new = np.nan if value is None else former + value
                self._told[name] = np.where(on, new, self._told[name])
            rows = np.flatnonzero(on if moment.ended is None else moment.ended)
            duration = self._duration[rows] if given is None else given[rows]
            gathered = {name: value[rows] for name, value in self._told.items()}
            entries.close_some(rows, moment, self._reward[rows], duration, gathered)
            self._length[rows] += duration
            self._reward[rows] = self._duration[rows] = 0
            for value in self._told.values():
                value[rows] = 0
        raw = info.get("raw_reward", reward)
        self._return += raw if running is None else np.where(running, raw, 0)
        for name, total in self._sums.items():
            paid = step_info(info, name, done)
            if paid is not None:
                now = paid if self._how[name] == "last" else total + paid
                total[:] = now if running is None else np.where(running, now, total)

    def _end_episodes(self, moment: Moment) -> EpisodeBatch:
        """Return the episodes that ended, those left out that were dropped."""
        over = moment.done if moment.spoiled is None else moment.done & ~moment.spoiled
        rows = np.flatnonzero(over)
        batch = EpisodeBatch(
            rows + self.first_env,
            self._return[rows],
            self._length[rows],
            {name: total[rows] for name, total in self._sums.items()},
        )
        self._forget(np.flatnonzero(moment.done))
        return batch

    def _forget(self, rows: np.ndarray) -> None:
        for total in (self._return, self._length, *self._sums.values()):
            total[rows] = 0

    def _drop(self, entries: "_Entries", rows: np.ndarray) -> "_Final":
        """Cut the episodes of some rows before what was not finite."""
        self.dropped += len(rows)
        self._reward[rows] = self._duration[rows] = 0
        for value in self._told.values():
            value[rows] = 0
        self._forget(rows)
        rows = rows[entries.length[rows] > 0]
        last = (entries.length[rows] - 1, rows)
        ended = entries.terminated[last] | entries.truncated[last]
        rows = rows[~ended]
        t = entries.length[rows]
        entries.truncated[t - 1, rows] = True
        return _Final(
            t - 1,
            rows,
            np.ones(len(rows), bool),
            map_tree(lambda x: x[t, rows], entries.observation),
            self.stepper.before.rows(rows) if len(rows) else None,
        )

    def _final(self, entries: "_Entries", rows: np.ndarray, moment: Moment) -> "_Final":
        cut = moment.truncated[rows]
        return _Final(
            entries.length[rows] - 1,
            rows,
            cut,
            self.stepper.final_observation(moment, rows),
            self.stepper.state.rows(rows[cut]) if cut.any() else None,
        )

    def _look_ahead(self, fragment: Fragment, finals: list["_Final"]) -> None:
        """Fill in what follows each row's last entry and the episodes that were cut.

        The actor is asked once for all of them; its state and the environments stay where they are.
        """
        stepper = self.stepper
        observation, state, reset = stepper.observation, stepper.state, stepper.reset
        running = stepper.running
        if self._open is not None and running is not None:
            # The next entry of these rows has been chosen already.
            seen = self._open
            observation = map_tree(
                lambda now, then: _where(running, then[0], now), observation, seen.observation
            )
            state = state.put(running, stepper.before.rows(running))
            reset = np.where(running, seen.reset[0], reset)
        fragment.next_observation = observation
        if finals:
            fragment.final_index = (
                np.concatenate([f.t for f in finals]),
                np.concatenate([f.rows for f in finals]),
            )
            fragment.final_observation = map_tree(
                lambda *x: np.concatenate(x), *(f.observation for f in finals)
            )
        cut = np.concatenate([f.cut for f in finals]) if finals else np.zeros(0, bool)
        states = [f.state for f in finals if f.state is not None]
        if states:
            observation = map_tree(
                lambda final, last: np.concatenate([final[cut], last]),
                fragment.final_observation,  # type: ignore[arg-type]
                observation,
            )
            state = _concatenate([*states, state])
            reset = np.concatenate([np.zeros(cut.sum(), bool), reset])
        for name, column in self.actor.look_ahead(observation, state, reset).items():
            at_final = np.zeros((len(cut), *column.shape[1:]), column.dtype)
            at_final[cut] = column[: cut.sum()]
            fragment.final_extras[name] = at_final
            fragment.next_extras[name] = column[cut.sum() :]

    def state_dict(self) -> dict[str, Any]:
        """Return everything that decides the next fragment, the environments' own state included.

        `env` is None where the environment cannot be restored; it then has to have been reset.
        """
        stepper = self.stepper
        state: dict[str, Any] = {
            "env": get_state(self.env) if self.restores_environments else None,
            "resets": self._resets,
            "rng": self.rng.bit_generator.state,
            "observation": map_tree(np.copy, stepper.observation),
            "reset": stepper.reset.copy(),
            "decides": _copy_mask(stepper.decides),
            "spoiled": _copy_mask(stepper.spoiled),
            "state": _arrays(stepper.state),
            "return": self._return.copy(),
            "length": self._length.copy(),
            "sums": {name: total.copy() for name, total in self._sums.items()},
            "running": None,
        }
        if self._open is not None:
            state["running"] = {
                "rows": _copy_mask(stepper.running),
                "before": _arrays(stepper.before),
                "action": stepper.action.copy(),
                "reward": self._reward.copy(),
                "duration": self._duration.copy(),
                "told": {name: x.copy() for name, x in self._told.items()},
                "entries": self._open.state_dict(),
            }
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume exactly where `state_dict` was taken.

        Raises:
          UserError: the environments cannot be brought where they were.
        """
        stepper = self.stepper
        self.rng.bit_generator.state = state["rng"]
        stepper.state = _restored(stepper.state, state["state"])
        if state["env"] is None or not self.restores_environments:
            # The run itself made this reset before it took the state.
            self._resets = state["resets"] - (state["env"] is None)
            self.reset_environments()
            return
        self._resets = state["resets"]
        set_state(self.env, state["env"])
        # Copies, because most of them are updated in place.
        stepper.observation = map_tree(np.copy, state["observation"])
        stepper.reset = state["reset"].copy()
        if "skip" in state:  # written before actions could last
            stepper.decides = ~state["skip"] if state["skip"].any() else None
            stepper.reset |= state["skip"]
        else:
            stepper.decides = _copy_mask(state["decides"])
        stepper.spoiled = _copy_mask(state.get("spoiled"))
        self._return, self._length = state["return"].copy(), state["length"].copy()
        self._sums = {name: total.copy() for name, total in state["sums"].items()}
        open_actions = state.get("running")
        self._open, stepper.running = None, None
        if open_actions is not None:
            stepper.running = _copy_mask(open_actions["rows"])
            stepper.before = _restored(stepper.state, open_actions["before"])
            stepper.action = open_actions["action"].copy()
            self._reward = open_actions["reward"].copy()
            self._duration = open_actions["duration"].copy()
            self._told = {name: x.copy() for name, x in open_actions["told"].items()}
            self._open = _Entries.from_state_dict(open_actions["entries"])


class _Entries:
    """The arrays of a fragment while it is filled, `[steps, N, ...]`.

    An entry is opened by a decision and closed when its action ends. As long as every row opens
    and closes one at each step, all rows stand at the same entry, and whole rows of arrays are
    written at once (`uniform`).
    """

    def __init__(self, steps: int, n: int, like: Tree, infos: Sequence[str] = ()) -> None:
        self.shape = (steps, n)
        self.uniform = True
        self.length = np.zeros(n, np.int64)
        self.observation = map_tree(self._buffer, like)
        self.reset, self.terminated, self.truncated = (np.zeros(self.shape, bool) for _ in range(3))
        self.reward = np.zeros(self.shape, np.float32)
        self.duration = np.zeros(self.shape, np.int32)
        self.info = {name: np.zeros(self.shape, np.float64) for name in infos}
        self.action: np.ndarray | None = None
        self.extras: dict[str, np.ndarray] = {}

    def _buffer(self, like: np.ndarray) -> np.ndarray:
        return np.zeros((*self.shape, *like.shape[1:]), like.dtype)

    def open(self, t: int, moment: Moment) -> None:
        """Write the decisions of step t."""
        rows = moment.decided
        self.uniform = self.uniform and rows is None
        if rows is None:
            at: Any = t if self.uniform else (self.length, np.arange(len(self.length)))
        elif len(rows):
            at = (self.length[rows], rows)
        else:
            return
        self._write(at, moment.observation, moment.action, moment.reset, moment.extras)

    def _write(
        self, at: Any, observation: Tree, action: np.ndarray, reset: np.ndarray, extras: Any
    ) -> None:
        if self.action is None:
            self.action = self._buffer(action)
            self.extras = {name: self._buffer(x) for name, x in extras.items()}
        map_tree(lambda buffer, x: buffer.__setitem__(at, x), self.observation, observation)
        self.action[at] = action
        self.reset[at] = reset
        for name, buffer in self.extras.items():
            buffer[at] = extras[name]

    def close(
        self, t: int, moment: Moment, reward: np.ndarray, duration: Any, told: dict[str, Any]
    ) -> None:
        """Close the entry of every row, all of them at step t."""
        self.reward[t], self.duration[t] = reward, duration
        if moment.any_done:
            self.terminated[t], self.truncated[t] = moment.terminated, moment.truncated
        for name, value in told.items():
            self.info[name][t] = np.nan if value is None else value
        self.length += 1

    def close_some(
        self, rows: np.ndarray, moment: Moment, reward: np.ndarray, duration: Any, told: Any
    ) -> None:
        """Close the entries of some rows."""
        self.uniform = False
        at = (self.length[rows], rows)
        self.reward[at], self.duration[at] = reward, duration
        self.terminated[at], self.truncated[at] = moment.terminated[rows], moment.truncated[rows]
        for name, value in told.items():
            self.info[name][at] = value
        self.length[rows] += 1

    def still_open(self, running: np.ndarray) -> "_Entries":
        """Return the entries of the rows in the middle of an action, as the first of a fragment."""
        assert self.action is not None  # the one that is running
        rest = _Entries(1, len(running), map_tree(lambda x: x[0], self.observation))
        rest._take(self, np.flatnonzero(running))
        return rest

    def reopen(self, rest: "_Entries", running: np.ndarray) -> None:
        """Begin with the entries that were open at the end of the last fragment."""
        self.uniform = False
        self._take(rest, np.flatnonzero(running))

    def _take(self, other: "_Entries", rows: np.ndarray) -> None:
        at = (other.length[rows], rows)
        assert other.action is not None
        self._write(
            (self.length[rows], rows),
            map_tree(lambda x: x[at], other.observation),
            other.action[at],
            other.reset[at],
            {name: x[at] for name, x in other.extras.items()},
        )

    def fragment(self, start: State, like: np.ndarray) -> Fragment:
        """Return what was filled; `like` is an action of all rows."""
        most = int(self.length.max())
        action = self._buffer(like) if self.action is None else self.action

        def cut(x: np.ndarray) -> np.ndarray:
            return x[:most]

        return Fragment(
            map_tree(cut, self.observation),
            cut(action),
            cut(self.reward),
            cut(self.terminated),
            cut(self.truncated),
            cut(self.reset),
            cut(self.duration),
            self.length,
            start,
            {name: cut(x) for name, x in self.extras.items()},
            {name: cut(x) for name, x in self.info.items()},
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the entries that are open, those of a fragment of one."""
        return {
            "observation": self.observation,
            "action": self.action,
            "reset": self.reset,
            "extras": self.extras,
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> "_Entries":
        """Return the entries whose `state_dict` it was."""
        entries = cls(1, state["reset"].shape[1], map_tree(lambda x: x[0], state["observation"]))
        entries.observation = map_tree(np.copy, state["observation"])
        entries.action, entries.reset = np.copy(state["action"]), np.copy(state["reset"])
        entries.extras = {name: np.copy(x) for name, x in state["extras"].items()}
        return entries


@dataclass
class _Final:
    """Rows whose episodes ended at one step."""

    t: np.ndarray  # of the entry that ended
    rows: np.ndarray
    cut: np.ndarray  # truncated rather than terminated
    observation: Tree
    state: State | None  # the actor's state of the cut rows, after the step


def _within(rows: np.ndarray, others: np.ndarray | None) -> np.ndarray:
    return rows if others is None else rows & others


def _where(rows: np.ndarray, yes: np.ndarray, no: np.ndarray) -> np.ndarray:
    return np.where(rows.reshape(-1, *[1] * (no.ndim - 1)), yes, no)


def _copy_mask(rows: np.ndarray | None) -> np.ndarray | None:
    return None if rows is None else rows.copy()


def _arrays(state: State) -> dict[str, np.ndarray]:
    return {path: _copy(x) for path, x in state.tensors().items()}


def _restored(fresh: State, arrays: dict[str, np.ndarray]) -> State:
    """Return a state like `fresh` with stored arrays."""
    kinds = fresh.tensors()
    return fresh.with_tensors({path: _like(kinds[path], x) for path, x in arrays.items()})


def _copy(x: Any) -> np.ndarray:
    return x.copy() if isinstance(x, np.ndarray) else x.numpy().copy()


def _like(fresh: Any, array: np.ndarray) -> Any:
    """Return a copy of `array` of the kind of `fresh`: a tensor or an array."""
    return np.array(array) if isinstance(fresh, np.ndarray) else fresh.new_tensor(array)


def _concatenate(states: list[State]) -> State:
    return concatenate(states, lambda parts: _cat(parts))


def _cat(parts: list[Any]) -> Any:
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    import torch  # only a state of tensors gets here

    return torch.cat(parts)
