"""The collector: steps vector environments with an actor and emits fragments.

The same class runs in-process and inside Ray actors. It is the one place that knows about
autoreset: no agent ever sees it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from palaestra.agents.base import Actor
from palaestra.agents.fragment import Fragment, Tree, map_tree
from palaestra.agents.loop import EpisodeBatch, join_episodes
from palaestra.envs.rows import reset_rows, step_info, summed_infos
from palaestra.envs.state import get_state, is_restorable, set_state
from palaestra.errors import UserError
from palaestra.policies.state import State, concatenate
from palaestra.seeding import Role, integer


class Collector:
    """Turns a vector environment and an actor into fixed-length fragments.

    Args:
      env: any Gymnasium vector environment whose metadata names its autoreset mode.
      actor: acts for all rows at once.
      rng: the acting stream.
      seeds: one seed for each environment; they decide every episode.
      first_env: global index of the first row, for episode records.
      resets: reset the environments at checkpoints even if they could give their state.

    Cases at the end of an episode (row n ends at step t):
      same-step: `observation[t + 1]` is the reset one, `reset[t + 1]` is true.
      next-step: step t + 1 shows the final observation, ignores the action and is not `valid`;
        `reset[t + 2]` is true.

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
    ) -> None:
        self.env = env
        self.actor = actor
        self.rng = rng
        self.first_env = first_env
        self.same_step = _resets_in_same_step(env)
        self.sum_names: tuple[str, ...] = summed_infos(env)
        self.restores_environments = not resets and is_restorable(env)
        self._seeds = seeds
        self._resets = 0
        self._begin(reset_rows(env, seeds))
        self._state = actor.initial_state(env.num_envs)
        space = env.single_action_space
        self._clip = (space.low, space.high) if isinstance(space, gymnasium.spaces.Box) else None

    def _begin(self, observation: Tree) -> None:
        """Start an episode in every row."""
        n = self.env.num_envs
        self._observation = observation
        self._reset = np.ones(n, bool)  # the next step is the first of an episode
        self._skip = np.zeros(n, bool)  # the next step ignores the action
        self._return = np.zeros(n, np.float64)
        self._length = np.zeros(n, np.int64)
        self._sums = {name: np.zeros(n, np.float64) for name in self.sum_names}

    def reset_environments(self) -> None:
        """Cut every episode short and start others; the cut ones are not recorded."""
        self._resets += 1
        seeds = [integer(seed, Role.ENV, self._resets) for seed in self._seeds]
        self._begin(reset_rows(self.env, seeds))

    def collect(self, steps: int) -> tuple[Fragment, EpisodeBatch]:
        """Step every environment `steps` times and return what happened."""
        n = self.env.num_envs
        observation = map_tree(lambda x: np.empty((steps, *x.shape), x.dtype), self._observation)
        reward = np.empty((steps, n), np.float32)
        terminated, truncated, reset, valid = (np.empty((steps, n), bool) for _ in range(4))
        actions: list[np.ndarray] = []
        extras: list[dict[str, np.ndarray]] = []
        finals: list[_Final] = []
        ended: list[EpisodeBatch] = []
        start = self._state
        for t in range(steps):
            map_tree(
                lambda buffer, x, t=t: buffer.__setitem__(t, x), observation, self._observation
            )
            reset[t], valid[t] = self._reset, ~self._skip
            action, self._state, extra = self.actor.act(
                self._observation, self._state, self._reset, self.rng, "sample"
            )
            self._observation, reward[t], terminated[t], truncated[t], info = self.env.step(
                action if self._clip is None else np.clip(action, *self._clip)
            )
            actions.append(action)
            extras.append(extra)
            done = terminated[t] | truncated[t]
            self._tally(info.get("raw_reward", reward[t]), info, done)
            if done.any():
                rows = np.flatnonzero(done)
                finals.append(self._final(t, rows, truncated[t, rows], info))
                ended.append(self._end_episodes(rows))
            self._reset, self._skip = (done, self._skip) if self.same_step else (self._skip, done)
        fragment = Fragment(
            observation,
            np.stack(actions),
            reward,
            terminated,
            truncated,
            reset,
            valid,
            np.ones((steps, n), np.int32),
            start,
            {name: np.stack([extra[name] for extra in extras]) for name in extras[0]},
            self._observation,
        )
        self._look_ahead(fragment, finals)
        return fragment, join_episodes(ended, self.sum_names)

    def _tally(self, reward: np.ndarray, info: dict[str, Any], done: np.ndarray) -> None:
        self._return += reward
        self._length += ~self._skip
        for name, total in self._sums.items():
            paid = step_info(info, name, done)
            total += 0 if paid is None else paid * ~self._skip

    def _end_episodes(self, rows: np.ndarray) -> EpisodeBatch:
        batch = EpisodeBatch(
            rows + self.first_env,
            self._return[rows],
            self._length[rows],
            {name: total[rows] for name, total in self._sums.items()},
        )
        for total in (self._return, self._length, *self._sums.values()):
            total[rows] = 0
        return batch

    def _final(self, t: int, rows: np.ndarray, cut: np.ndarray, info: dict[str, Any]) -> "_Final":
        shown = self._observation
        if self.same_step:
            final = info["final_obs"]
            # Gymnasium gives an object array of observations, native environments a dense tree.
            if isinstance(final, np.ndarray) and final.dtype == object:
                found = map_tree(lambda *x: np.stack(x), *(final[row] for row in rows))
            else:
                found = map_tree(lambda x: x[rows], final)
        else:
            found = map_tree(lambda x: x[rows], shown)
        state = self._state.rows(rows[cut]) if self.actor.bootstraps and cut.any() else None
        return _Final(t, rows, cut, found, state)

    def _look_ahead(self, fragment: Fragment, finals: list["_Final"]) -> None:
        """Fill in what follows the fragment's last step and its truncated episodes.

        The actor is asked once for all of them; its state and the environments stay where they are.
        """
        if finals:
            fragment.final_index = (
                np.concatenate([np.full(len(f.rows), f.t) for f in finals]),
                np.concatenate([f.rows for f in finals]),
            )
            fragment.final_observation = map_tree(
                lambda *x: np.concatenate(x), *(f.observation for f in finals)
            )
        if not self.actor.bootstraps:
            return
        cut = np.concatenate([f.cut for f in finals]) if finals else np.zeros(0, bool)
        states = [f.state for f in finals if f.state is not None]
        observation, state, reset = self._observation, self._state, self._reset
        if cut.any():
            observation = map_tree(
                lambda final, last: np.concatenate([final[cut], last]),
                fragment.final_observation,  # type: ignore[arg-type]
                observation,
            )
            state = _concatenate([*states, state])
            reset = np.concatenate([np.zeros(cut.sum(), bool), reset])
        _, _, extras = self.actor.act(observation, state, reset, self.rng, "greedy")
        for name, column in extras.items():
            at_final = np.zeros((len(cut), *column.shape[1:]), column.dtype)
            at_final[cut] = column[: cut.sum()]
            fragment.final_extras[name] = at_final
            fragment.last_extras[name] = column[cut.sum() :]

    def state_dict(self) -> dict[str, Any]:
        """Return everything that decides the next fragment, the environments' own state included.

        `env` is None where the environment cannot be restored; it then has to have been reset.
        """
        return {
            "env": get_state(self.env) if self.restores_environments else None,
            "resets": self._resets,
            "rng": self.rng.bit_generator.state,
            "observation": map_tree(np.copy, self._observation),
            "reset": self._reset.copy(),
            "skip": self._skip.copy(),
            "state": {path: _copy(x) for path, x in self._state.tensors().items()},
            "return": self._return.copy(),
            "length": self._length.copy(),
            "sums": {name: total.copy() for name, total in self._sums.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken.

        Raises:
          UserError: the environments cannot be brought where they were.
        """
        self.rng.bit_generator.state = state["rng"]
        fresh = self._state.tensors()
        self._state = self._state.with_tensors(
            {path: _like(fresh[path], array) for path, array in state["state"].items()}
        )
        if state["env"] is None or not self.restores_environments:
            # The run itself made this reset before it took the state.
            self._resets = state["resets"] - (state["env"] is None)
            self.reset_environments()
            return
        self._resets = state["resets"]
        set_state(self.env, state["env"])
        # Copies, because most of them are updated in place.
        self._observation = map_tree(np.copy, state["observation"])
        self._reset, self._skip = state["reset"].copy(), state["skip"].copy()
        self._return, self._length = state["return"].copy(), state["length"].copy()
        self._sums = {name: total.copy() for name, total in state["sums"].items()}


@dataclass
class _Final:
    """Rows whose episodes ended at step t."""

    t: int
    rows: np.ndarray
    cut: np.ndarray  # truncated rather than terminated
    observation: Tree
    state: State | None  # the actor's state of the cut rows, after step t


def _resets_in_same_step(env: VectorEnv) -> bool:
    mode = env.metadata.get("autoreset_mode")
    if mode not in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP):
        raise UserError(
            f"vector environment {env!r}: metadata['autoreset_mode'] is {mode!r}; "
            "accepted: AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP."
        )
    return mode == AutoresetMode.SAME_STEP


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
