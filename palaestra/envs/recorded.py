"""Environments that can be stopped and gone on with: each episode is kept as what caused it."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array, iterate

from palaestra.errors import UserError

State = dict[str, Any]

_FLAT = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


class RecordedEpisodes(gymnasium.Wrapper):
    """Gives any environment that is deterministic in its seed and actions an exact state.

    It remembers how the current episode came about: the random generator before the reset, the
    seed and options of the reset, and every action since. `set_state` does all of it again, in this
    or another copy of the environment, wrappers inside included. Memory and time grow with the
    length of the episode alone.

    Args:
      env: the environment, wrapped as it is used. Its own `get_state`/`set_state`, if it has them,
        carry what it keeps from episode to episode.
      reseed: each reset without a seed draws the episode's seed from a stream that the last
        explicit seed started, so that an episode follows from its seed and actions alone, even
        where the environment hides generators of its own, as an emulator does. False leaves the
        flow of random numbers as it is.
    """

    def __init__(self, env: gymnasium.Env, reseed: bool) -> None:
        super().__init__(env)
        self.last_observation: Any = None
        self._seeds = np.random.default_rng() if reseed else None
        self._begun = False
        self._before: State = {}
        self._seed: int | None = None
        self._options: dict[str, Any] | None = None
        self._actions: list[Any] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environment, with a seed of its own for each episode if so asked."""
        if self._seeds is not None:
            if seed is None:
                seed = int(self._seeds.integers(2**31))
            else:
                self._seeds = np.random.default_rng(seed)
        if self._begun or seed is None:
            self._before = self._between_episodes(draws=seed is None)
        else:
            self._before = {"rng": None, "own": None}  # all begins with the seed
        self._seed, self._options, self._actions = seed, copy.deepcopy(options), []
        self.last_observation, info = self.env.reset(seed=seed, options=options)
        self._begun = True
        return self.last_observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment and note the action."""
        # A copy, because callers write the next actions into the same array.
        self._actions.append(_copy(action))
        result = self.env.step(action)
        self.last_observation = result[0]
        return result

    def get_state(self) -> State:
        """Return what `set_state` needs to go on exactly here: plain values and arrays.

        Before the first reset it is what the first reset starts from.
        """
        state: State = {
            "seeds": None if self._seeds is None else self._seeds.bit_generator.state,
            "begun": self._begun,
            "now": self._between_episodes(draws=not self._begun),
        }
        if self._begun:
            state |= {
                "before": copy.deepcopy(self._before),
                "seed": self._seed,
                "options": copy.deepcopy(self._options),
                "actions": _stack(self._actions),
                "observation": _plain(self.last_observation),
            }
        return state

    def set_state(self, state: State) -> None:
        """Go on exactly where `get_state` was called on an environment with the same options.

        Raises:
          UserError: the same seed and actions led elsewhere.
        """
        if self._seeds is not None:
            self._seeds.bit_generator.state = state["seeds"]
        self._begun = state["begun"]
        if not self._begun:
            self._go_back(state["now"])
            return
        self._before, self._seed = copy.deepcopy(state["before"]), state["seed"]
        self._options = copy.deepcopy(state["options"])
        self._actions = _unstack(state["actions"])
        self._go_back(self._before)
        self.last_observation, _ = self.env.reset(
            seed=self._seed, options=copy.deepcopy(self._options)
        )
        for action in self._actions:
            self.last_observation = self.env.step(_copy(action))[0]
        there = (_plain(self.last_observation), self._between_episodes(draws=False))
        if not _equal(there, (state["observation"], state["now"])):
            raise UserError(
                f"{_name(self)} is not deterministic in its seed and actions, so it cannot be "
                "restored; env.reset_at_checkpoint=true starts new episodes at every checkpoint "
                "instead."
            )

    def _between_episodes(self, draws: bool) -> State:
        """Return what the environment carries from one episode to the next.

        Args:
          draws: the next reset draws from the generator, so that it is made here if it was not yet.
        """
        base = self.unwrapped
        generator = base.np_random if draws else base._np_random
        return {
            "rng": None if generator is None else generator.bit_generator.state,
            "own": base.get_state() if hasattr(base, "get_state") else None,
        }

    def _go_back(self, state: State) -> None:
        base = self.unwrapped
        if state["own"] is not None:
            base.set_state(state["own"])  # type: ignore[attr-defined]
        if state["rng"] is None:
            base.np_random = None  # type: ignore[assignment]
        else:
            base.np_random.bit_generator.state = state["rng"]


class RowsVectorEnv(SyncVectorEnv):
    """Gymnasium's `SyncVectorEnv` over recorded rows: same-step autoreset and an exact state.

    Every episode has a seed of its own, drawn from its row's stream (`RecordedEpisodes`).

    Args:
      makers: one function for each row that makes its environment.
    """

    envs: list[RecordedEpisodes]  # type: ignore[assignment]

    def __init__(self, makers: Sequence[Callable[[], gymnasium.Env]]) -> None:
        super().__init__(
            [partial(_recorded, make) for make in makers],
            autoreset_mode=AutoresetMode.SAME_STEP,
        )
        self._flat = isinstance(self.single_observation_space, _FLAT)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step all rows; those whose episode ends show the first observation of the next one."""
        n = self.num_envs
        rewards, terminated, truncated = np.empty(n), np.empty(n, bool), np.empty(n, bool)
        infos: dict[str, Any] = {}
        for i, action in enumerate(iterate(self.action_space, actions)):
            env = self.envs[i]
            observation, rewards[i], ended, cut, info = env.step(action)
            terminated[i], truncated[i] = ended, cut
            if ended or cut:
                final = {"final_obs": observation, "final_info": info}
                infos = self._add_info(infos, final, i)
                observation, info = env.reset()
            self._env_obs[i] = observation
            if info:
                infos = self._add_info(infos, info, i)
        return self._together(), rewards, terminated, truncated, infos

    def _together(self) -> Any:
        """Return the rows' observations as one, in arrays of its own."""
        space = self.single_observation_space
        if self._flat:
            return np.array(self._env_obs, space.dtype)
        together: Any = create_empty_array(space, self.num_envs, fn=np.zeros)
        return concatenate(space, self._env_obs, together)

    def get_state(self) -> State:
        """Return what `set_state` needs to go on exactly here."""
        return {"rows": tuple(row.get_state() for row in self.envs)}

    def set_state(self, state: State) -> None:
        """Go on exactly where `get_state` was called on an environment with the same options.

        Raises:
          UserError: a row is not deterministic in its seed and actions.
        """
        for i, (row, saved) in enumerate(zip(self.envs, state["rows"], strict=True)):
            row.set_state(saved)
            self._env_obs[i] = row.last_observation


def _recorded(make: Callable[[], gymnasium.Env]) -> RecordedEpisodes:
    return RecordedEpisodes(make(), reseed=True)


def _name(env: gymnasium.Env) -> str:
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def _copy(action: Any) -> Any:
    if isinstance(action, np.ndarray):
        return action.copy()
    if isinstance(action, dict):
        return {key: _copy(x) for key, x in action.items()}
    return tuple(map(_copy, action)) if isinstance(action, tuple) else action


def _stack(actions: list[Any]) -> Any:
    """Return actions as one array for each leaf; as they are where they differ in kind or shape."""
    first = actions[0] if actions else None
    if isinstance(first, dict):
        return {"keys": {key: _stack([action[key] for action in actions]) for key in first}}
    if isinstance(first, tuple) and len({len(action) for action in actions}) == 1:
        return {"items": tuple(_stack(list(column)) for column in zip(*actions, strict=True))}
    kinds = {_kind(action) for action in actions}
    if len(kinds) == 1 and None not in kinds:
        return np.array(actions)
    return [_copy(action) for action in actions]


def _unstack(stacked: Any) -> list[Any]:
    if not isinstance(stacked, dict):
        return list(stacked)
    if "items" in stacked:
        return list(zip(*map(_unstack, stacked["items"]), strict=True))
    columns = map(_unstack, stacked["keys"].values())
    return [dict(zip(stacked["keys"], row, strict=True)) for row in zip(*columns, strict=True)]


def _kind(x: Any) -> tuple[Any, ...] | None:
    return (x.dtype, x.shape) if isinstance(x, np.ndarray | np.generic) else None


def _plain(tree: Any) -> Any:
    """Return a copy of `tree` with Python's numbers in place of NumPy's scalars."""
    if isinstance(tree, dict):
        return {key: _plain(x) for key, x in tree.items()}
    if isinstance(tree, tuple | list):
        return tuple(_plain(x) for x in tree)
    if isinstance(tree, np.generic):
        return tree.item()
    return tree.copy() if isinstance(tree, np.ndarray) else tree


def _equal(a: Any, b: Any) -> bool:
    """Whether two trees hold the same values, bit for bit; a list is as good as a tuple."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, np.ndarray):
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    return a == b or (a != a and b != b)  # not a number is equal to itself here
