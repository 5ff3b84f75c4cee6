"""A vector environment whose actions last, rows played by hand, and an agent that remembers."""

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from palaestra.agents.base import Actor, Mode, Step
from palaestra.experience.fragment import Fragment
from palaestra.experience.state import State

GAMMA = 0.5  # so that sums of discounted rewards are exact in float32
ACTIONS = 5


def paid(row: int, episode: int, t: int) -> float:
    """Return the reward of a step, undiscounted."""
    return float((7 * row + 3 * episode + 5 * t) % 4)


class Lockstep(VectorEnv):
    """Action k lasts up to k + 1 steps (one step if `lasting` is false) and pays within them.

    Observes (row, episode, step). `lengths[row]` are the lengths of its episodes, over and over;
    episode e of a row is cut rather than ended by its own rules where (row + e) is odd.
    """

    def __init__(
        self,
        num_envs: int = 3,
        lengths: Any = ((2, 9), (3,), (7, 1)),
        next_step: bool = False,
        lasting: bool = True,
        tells_duration: bool = True,
    ) -> None:
        mode = AutoresetMode.NEXT_STEP if next_step else AutoresetMode.SAME_STEP
        self.metadata = {"autoreset_mode": mode, "episode_sums": ("pay",)}
        self.num_envs, self.lengths = num_envs, [lengths[n % len(lengths)] for n in range(num_envs)]
        self.next_step, self.lasting, self.tells_duration = next_step, lasting, tells_duration
        self.single_observation_space = gymnasium.spaces.Box(0, 1000, (3,), np.float32)
        self.single_action_space = gymnasium.spaces.Discrete(ACTIONS)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        n = self.num_envs
        self.episode, self.t = np.zeros(n, int), np.zeros(n, int)
        self.left, self.taken = np.zeros(n, int), np.zeros(n, int)  # of the running action
        self.over = np.zeros(n, bool)
        return self._observe(), {}

    def step(self, actions: Any) -> Any:
        n = self.num_envs
        reward, pay = np.zeros(n), np.zeros(n)
        terminated, truncated = np.zeros(n, bool), np.zeros(n, bool)
        for row in range(n):
            if self.over[row]:  # the step of a next-step autoreset
                self._next_episode(row)
                continue
            if self.left[row] == 0:
                self.left[row] = actions[row] + 1 if self.lasting else 1
                self.taken[row] = 0
            self.t[row] += 1
            pay[row] = paid(row, self.episode[row], self.t[row])
            reward[row] = GAMMA ** self.taken[row] * pay[row]
            self.left[row] -= 1
            self.taken[row] += 1
            if self.t[row] == self.lengths[row][self.episode[row] % len(self.lengths[row])]:
                cut = bool((row + self.episode[row]) % 2)
                truncated[row], terminated[row] = cut, not cut
                self.left[row] = 0
        done = terminated | truncated
        info: dict[str, Any] = {"pay": pay}
        if self.lasting:
            info["decides"] = self.left == 0
        if self.lasting and self.tells_duration:
            info["duration"] = self.taken.copy()
        shown = self._observe()
        if self.next_step:
            self.over = done
        elif done.any():
            info |= {"final_obs": shown, "_final_obs": done, "final_info": {"pay": pay.copy()}}
            for row in np.flatnonzero(done):
                self._next_episode(row)
            shown = self._observe()
        return shown, reward, terminated, truncated, info

    def _next_episode(self, row: int) -> None:
        self.episode[row] += 1
        self.t[row] = 0
        self.over[row] = False

    def _observe(self) -> np.ndarray:
        return np.stack([np.arange(self.num_envs), self.episode, self.t], 1).astype(np.float32)

    def get_state(self) -> dict[str, Any]:
        names = ("episode", "t", "left", "taken", "over")
        return {name: getattr(self, name).copy() for name in names}

    def set_state(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, np.array(value))


@dataclass
class Decided(State):
    count: np.ndarray  # decisions in this episode


def choose(observation: np.ndarray, count: np.ndarray) -> np.ndarray:
    row, episode, t = observation.astype(int).T
    return (2 * row + episode + t + 3 * count) % ACTIONS


class Deciding(Actor):
    """Acts by what it sees and by how often it has decided; values are of both, too."""

    def initial_state(self, batch: int) -> Decided:
        return Decided(np.zeros(batch, np.int64))

    def act(
        self, observation: Any, state: Any, reset: np.ndarray, rng: np.random.Generator, mode: Mode
    ) -> Step:
        count = np.where(reset, 0, state.count) + 1
        return choose(observation, count), Decided(count), self._value(observation, count)

    def look_ahead(self, observation: Any, state: Any, reset: np.ndarray) -> Any:
        return self._value(observation, np.where(reset, 0, state.count) + 1)

    @staticmethod
    def _value(observation: np.ndarray, count: np.ndarray) -> dict[str, np.ndarray]:
        return {"value": (observation @ [1.0, 10.0, 100.0] + 0.25 * count).astype(np.float32)}


@dataclass
class Entry:
    """One decision of one row, as it is played by hand."""

    observation: tuple[float, ...]
    action: int
    reset: bool
    reward: float
    duration: int
    pay: float
    terminated: bool
    truncated: bool
    value: float
    next_value: float  # of what truly follows; 0 after a termination


def by_hand(env: Lockstep, row: int, steps: int) -> list[Entry]:
    """Return the decisions of a row whose actions have ended within so many of its steps."""

    def see() -> tuple[float, ...]:
        return float(row), float(episode), float(t)

    def value(count: int) -> float:
        return float(np.float32(np.float32([row, episode, t]) @ [1.0, 10.0, 100.0] + 0.25 * count))

    entries: list[Entry] = []
    episode = t = count = clock = 0
    while True:
        count += 1
        entry = Entry(see(), 0, count == 1, 0.0, 0, 0.0, False, False, value(count), 0.0)
        entry.action = int(choose(np.array([see()]), np.array([count]))[0])
        planned = entry.action + 1 if env.lasting else 1
        length = env.lengths[row][episode % len(env.lengths[row])]
        while entry.duration < planned and t < length:
            t, clock = t + 1, clock + 1
            pay = paid(row, episode, t)
            entry.reward += GAMMA**entry.duration * pay
            entry.pay += pay
            entry.duration += 1
        if clock > steps:
            return entries
        entries.append(entry)
        if t == length:
            entry.truncated = bool((row + episode) % 2)
            entry.terminated = not entry.truncated
        entry.next_value = 0.0 if entry.terminated else value(count + 1)
        if t == length:
            episode, t, count = episode + 1, 0, 0
            clock += env.next_step


def unpacked(fragments: list[Fragment], row: int) -> list[Entry]:
    """Return the decisions of a row in a sequence of fragments."""
    entries = []
    for f in fragments:
        final = (
            {(t, n): x for t, n, x in zip(*f.final_index, f.final_extras["value"], strict=True)}
            if len(f.final_index[0])
            else {}
        )
        for t in range(f.length[row]):
            following = f.extras["value"][t + 1, row] if t + 1 < f.length[row] else None
            if following is None:
                following = f.next_extras["value"][row]
            if f.truncated[t, row]:
                following = final[t, row]
            entries.append(
                Entry(
                    tuple(f.observation[t, row].tolist()),
                    int(f.action[t, row]),
                    bool(f.reset[t, row]),
                    float(f.reward[t, row]),
                    int(f.duration[t, row]),
                    float(f.info["pay"][t, row]),
                    bool(f.terminated[t, row]),
                    bool(f.truncated[t, row]),
                    float(f.extras["value"][t, row]),
                    0.0 if f.terminated[t, row] else float(following),
                )
            )
    return entries


gymnasium.register("tests/Lockstep-v0", vector_entry_point=f"{__name__}:Lockstep")
