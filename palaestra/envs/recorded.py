"""Environments that can be stopped and continued: each episode is kept as what caused it."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import iterate

from palaestra.envs.marks import marks
from palaestra.envs.protocol import observation_fault, reset_fault, step_fault
from palaestra.envs.trees import equal_trees, join_rows
from palaestra.errors import EnvironmentFailure, RunError, UserError

State = dict[str, Any]

_FLAT = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


class RecordedEpisodes(gymnasium.Wrapper):
    """Gives any environment that is deterministic in its seed and actions an exact state.

    It remembers how the current episode came about: the random generator before the reset, the
    seed and options of the reset, and every action since. `set_state` does all of it again, in this
    or another copy of the environment, wrappers inside included. Memory and time grow with the
    length of the episode alone.

    Args:
      env: the environment. Its own `get_state`/`set_state`, if it has them, carry what it keeps
        from episode to episode.
      reseed: each reset without a seed draws the episode's seed from a stream that the last
        explicit seed started, so that an episode follows from its seed and actions alone, even
        where the environment hides generators of its own, as an emulator does. False leaves the
        flow of random numbers as it is.
      wrappers: functions that wrap the environment, innermost first. A wrapper with `get_state` and
        `set_state` carries what it keeps from episode to episode; any other one is restored by
        the replay, and `set_state` fails if that left it other than it was.

    Attributes:
      made: the environment without these wrappers.
      kept: these wrappers, innermost first.
      row: which row of a vector environment it is, for messages.

    Raises:
      EnvironmentFailure: from `reset` and `step`, where the environment raised an error or returned
        what the interface does not allow.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        reseed: bool,
        wrappers: Sequence[Callable[[gymnasium.Env], gymnasium.Env]] = (),
    ) -> None:
        self.made, self.kept = env, []
        for wrap in wrappers:
            env = wrap(env)
            self.kept.append(env)
        super().__init__(env)
        self.row: int | None = None
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
            # All begins with the seed.
            self._before = {"rng": None, "own": None} | self._wrapper_states()
        self._seed, self._options, self._actions = seed, copy.deepcopy(options), []
        try:
            result = self.env.reset(seed=seed, options=options)
        except (UserError, RunError):
            raise
        except Exception as error:
            raise EnvironmentFailure.of(error, _name(self), "reset", self.row) from error
        if fault := reset_fault(result):
            raise EnvironmentFailure(_name(self), "reset", "wrong interface", fault, self.row)
        self.last_observation, info = result
        self._begun = True
        return self.last_observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment and note the action."""
        # A copy, because callers write the next actions into the same array.
        self._actions.append(_copy(action))
        try:
            result = self.env.step(action)
        except (UserError, RunError):
            raise
        except Exception as error:
            raise EnvironmentFailure.of(error, *self._place()) from error
        if type(result) is not tuple or len(result) != 5:
            raise EnvironmentFailure(
                *self._place()[:2], "wrong interface", str(step_fault(result)), *self._place()[2:]
            )
        self.last_observation = result[0]
        return result

    def _place(self) -> tuple[str, str, int | None, int]:
        return _name(self), "step", self.row, len(self._actions) - 1

    @property
    def steps(self) -> int:
        """Steps that the episode has taken."""
        return len(self._actions)

    def get_state(self) -> State:
        """Return what `set_state` needs to continue exactly here: plain values and arrays.

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
        if self.kept:
            state["marks"] = self._marks()
        return state

    def set_state(self, state: State) -> None:
        """Continue exactly where `get_state` was called on an environment with the same options.

        Raises:
          UserError: the same seed and actions led elsewhere, or left a wrapper other than it was.
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
        if not equal_trees(there, (state["observation"], state["now"])):
            raise UserError(
                f"{_name(self)} is not deterministic in its seed and actions, so it cannot be "
                "restored; env.reset_at_checkpoint=true starts new episodes at every checkpoint "
                "instead."
            )
        for wrapper, mark, saved in zip(
            self.kept, self._marks(), state.get("marks", ()), strict=True
        ):
            if mark != saved:
                raise UserError(
                    f"wrapper {type(wrapper).__name__} of {_name(self)} keeps something from "
                    "episode to episode and has no get_state, so that it cannot be restored; "
                    "env.reset_at_checkpoint=true starts new episodes at every checkpoint instead."
                )

    def _marks(self) -> list[str]:
        """Return a mark of what each wrapper keeps that does not give its state, else ""."""
        return ["" if _tells(wrapper) else marks(wrapper) for wrapper in self.kept]

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
        } | self._wrapper_states()

    def _wrapper_states(self) -> State:
        # The key is there with wrappers alone: without any, a state is what it always was.
        if not self.kept:
            return {}
        states = [wrapper.get_state() if _tells(wrapper) else None for wrapper in self.kept]  # type: ignore[attr-defined]
        return {"wrappers": copy.deepcopy(states)}

    def _go_back(self, state: State) -> None:
        for wrapper, own in zip(self.kept, state.get("wrappers", ()), strict=True):
            if own is not None:
                wrapper.set_state(copy.deepcopy(own))  # type: ignore[attr-defined]
        base = self.unwrapped
        if state["own"] is not None:
            base.set_state(state["own"])  # type: ignore[attr-defined]
        if state["rng"] is None:
            base.np_random = None  # type: ignore[assignment]
        else:
            base.np_random.bit_generator.state = state["rng"]


class RowsVectorEnv(SyncVectorEnv):
    """Gymnasium's `SyncVectorEnv` over recorded rows: same-step autoreset and an exact state.

    Every episode has a seed of its own, drawn from its row's stream (`RecordedEpisodes`). Texts in
    observations are arrays of strings, `[N]`.

    Args:
      makers: one function for each row that makes its environment.
      wrappers: functions that wrap the environment of a row, innermost first.
    """

    envs: list[RecordedEpisodes]  # type: ignore[assignment]

    def __init__(
        self,
        makers: Sequence[Callable[[], gymnasium.Env]],
        wrappers: Sequence[Callable[[gymnasium.Env], gymnasium.Env]] = (),
    ) -> None:
        super().__init__(
            [partial(_recorded, make, wrappers) for make in makers],
            autoreset_mode=AutoresetMode.SAME_STEP,
        )
        for row, env in enumerate(self.envs):
            env.row = row
        self._flat = isinstance(self.single_observation_space, _FLAT)
        self._restores_wrappers: bool | None = None

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Reset the rows, or those of `options["reset_mask"]`; one seed each, or s, s + 1, ..."""
        try:
            _, infos = super().reset(seed=seed, options=options)
        except UserError:
            raise
        except ValueError:  # rows that cannot be put together
            self._blame()
            raise
        return self._together(), infos

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
        if not self._flat:
            return join_rows(space, self._env_obs)
        try:
            together = np.array(self._env_obs, space.dtype)
        except (TypeError, ValueError):  # rows of several shapes, or no numbers
            together = None
        if together is None or together.shape[1:] != space.shape:
            self._blame()
        return together

    def _blame(self) -> None:
        """Name a row whose observation does not have the shape of its space."""
        space = self.single_observation_space
        for env, observation in zip(self.envs, self._env_obs, strict=True):
            fault = observation_fault(space, observation)
            if fault is not None and np.shape(observation) != space.shape:  # type: ignore[call-overload]
                raise EnvironmentFailure(
                    _name(env),
                    "step" if env.steps else "reset",
                    "wrong observation",
                    fault,
                    env.row,
                    env.steps,
                )

    @property
    def restores_wrappers(self) -> bool:
        """Whether a replay restores the wrappers of rows that do not give their state.

        Two fresh rows tell, once: one is played over the end of an episode, the other takes its
        state.
        """
        if self._restores_wrappers is None:
            unknown = [w for w in self.envs[0].kept if not (_tells(w) or _is_stateless(w))]
            self._restores_wrappers = not unknown or self._restores()
        return self._restores_wrappers

    def _restores(self) -> bool:
        made: list[RecordedEpisodes] = []
        try:
            for _ in range(2):
                made.append(self.env_fns[0]())  # type: ignore[arg-type]
            one, other = made
            play(one, seed=0, steps=8)
            other.set_state(one.get_state())
        except Exception:  # also where there can be no second environment
            return False
        finally:
            for env in made:
                env.close()
        return True

    def get_state(self) -> State:
        """Return what `set_state` needs to continue exactly here."""
        return {"rows": tuple(row.get_state() for row in self.envs)}

    def set_state(self, state: State) -> None:
        """Continue exactly where `get_state` was called on an environment with the same options.

        Raises:
          UserError: a row is not deterministic in its seed and actions.
        """
        for i, (row, saved) in enumerate(zip(self.envs, state["rows"], strict=True)):
            row.set_state(saved)
            self._env_obs[i] = row.last_observation


def sample_action(space: gymnasium.Space[Any], info: dict[str, Any]) -> Any:
    """Return a random action, a legal one where the infos tell which those are."""
    mask = info.get("action_mask")
    if mask is None or not isinstance(space, spaces.Discrete):
        return space.sample()
    return space.sample(np.asarray(mask, np.int8))


def play(env: gymnasium.Env, seed: int, steps: int) -> None:
    """Play random actions, begin another episode, and play half as many in it."""
    env.action_space.seed(seed)
    _, info = env.reset(seed=seed)
    for number in (steps, steps // 2):
        for _ in range(number):
            action = sample_action(env.action_space, info)
            *_, terminated, truncated, info = env.step(action)
            if terminated or truncated:
                _, info = env.reset()
        if number == steps:
            _, info = env.reset()


def _recorded(
    make: Callable[[], gymnasium.Env], wrappers: Sequence[Callable[[gymnasium.Env], gymnasium.Env]]
) -> RecordedEpisodes:
    return RecordedEpisodes(make(), reseed=True, wrappers=wrappers)


def _tells(wrapper: Any) -> bool:
    # Of the class, because a wrapper may pass on attributes of what it wraps.
    return hasattr(type(wrapper), "get_state") and hasattr(type(wrapper), "set_state")


def _is_stateless(wrapper: Any) -> bool:
    return getattr(type(wrapper), "stateless", False)


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
