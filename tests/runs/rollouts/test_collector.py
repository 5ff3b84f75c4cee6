"""The collector against environments whose every observation is known in advance."""

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from palaestra.agents.base import Actor, Mode, Step
from palaestra.errors import UserError
from palaestra.experience.state import State
from palaestra.runs.rollouts.collector import Collector


class Counting(gymnasium.Env):
    """Observes (episode, step) and ends each episode after `length` steps."""

    observation_space = gymnasium.spaces.Box(-1, 1000, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, length: int, truncates: bool) -> None:
        self.length, self.truncates, self.episode = length, truncates, -1

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.episode, self.t = self.episode + 1, 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        done = self.t == self.length
        return (
            self._observe(),
            float(self.t),
            done and not self.truncates,
            done and self.truncates,
            {},
        )

    def _observe(self) -> np.ndarray:
        return np.array([self.episode, self.t], np.float32)


@dataclass
class Count(State):
    steps: np.ndarray


class StepCounter(Actor):
    """Counts the steps of its episode; its value is the observation's step plus 100 times that."""

    def initial_state(self, batch: int) -> State:
        return Count(np.zeros(batch, np.int64))

    def act(
        self, observation: Any, state: Any, reset: np.ndarray, rng: np.random.Generator, mode: Mode
    ) -> Step:
        steps = np.where(reset, 0, state.steps) + 1
        value = observation[:, 1] + 100.0 * steps
        return np.zeros(len(reset), np.int64), Count(steps), {"value": value}

    def look_ahead(self, observation: Any, state: Any, reset: np.ndarray) -> Any:
        return self.act(observation, state, reset, np.random.default_rng(0), "greedy")[2]


LENGTHS = (2, 3, 3)


def make(mode: AutoresetMode, truncates: bool, vector: Any = SyncVectorEnv) -> Collector:
    envs = [lambda n=n: Counting(n, truncates) for n in LENGTHS]
    env = vector(envs, autoreset_mode=mode)
    return Collector(env, StepCounter(), np.random.default_rng(0), [0, 0, 0])


@pytest.mark.parametrize("truncates", [False, True])
@pytest.mark.parametrize("vector", [SyncVectorEnv, AsyncVectorEnv])
def test_same_step_fragments_hold_every_transition(truncates: bool, vector: Any) -> None:
    collector = make(AutoresetMode.SAME_STEP, truncates, vector)
    fragment, episodes = collector.collect(4)
    collector.env.close()
    np.testing.assert_array_equal(
        fragment.observation[..., 0], [[0, 0, 0], [0, 0, 0], [1, 0, 0], [1, 1, 1]]
    )
    np.testing.assert_array_equal(
        fragment.observation[..., 1], [[0, 0, 0], [1, 1, 1], [0, 2, 2], [1, 0, 0]]
    )
    np.testing.assert_array_equal(fragment.reward, [[1, 1, 1], [2, 2, 2], [1, 3, 3], [2, 1, 1]])
    done = [[0, 0, 0], [1, 0, 0], [0, 1, 1], [1, 0, 0]]
    np.testing.assert_array_equal(fragment.truncated if truncates else fragment.terminated, done)
    assert not (fragment.terminated if truncates else fragment.truncated).any()
    np.testing.assert_array_equal(fragment.reset, [[1, 1, 1], [0, 0, 0], [1, 0, 0], [0, 1, 1]])
    assert fragment.valid.all()
    np.testing.assert_array_equal(fragment.final_index, ([1, 2, 2, 3], [0, 1, 2, 0]))
    np.testing.assert_array_equal(fragment.final_observation, [[0, 2], [0, 3], [0, 3], [1, 2]])
    np.testing.assert_array_equal(episodes.env, [0, 1, 2, 0])
    np.testing.assert_array_equal(episodes.returns, [3, 6, 6, 3])
    np.testing.assert_array_equal(episodes.length, [2, 3, 3, 2])


def test_next_step_fragments_leave_out_the_ignored_action() -> None:
    fragment, episodes = make(AutoresetMode.NEXT_STEP, False).collect(5)
    np.testing.assert_array_equal(fragment.length, [4, 4, 4])
    np.testing.assert_array_equal(fragment.observation[:, 0], [[0, 0], [0, 1], [1, 0], [1, 1]])
    np.testing.assert_array_equal(fragment.reset[:, 0], [1, 0, 1, 0])
    np.testing.assert_array_equal(fragment.reward[:, 0], [1, 2, 1, 2])
    np.testing.assert_array_equal(fragment.final_observation[0], [0, 2])
    np.testing.assert_array_equal(episodes.length, [2, 3, 3, 2])
    assert fragment.env_steps == fragment.decisions == 15 - 3


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_truncated_episodes_bootstrap_from_their_true_final_observation(mode: Any) -> None:
    fragment, _ = make(mode, True).collect(4)
    # Step of the final observation, plus 100 for each step the actor then has seen, this one too.
    np.testing.assert_array_equal(fragment.final_extras["value"][:3], [2 + 300, 3 + 400, 3 + 400])


def test_looking_ahead_leaves_the_actors_memory_alone() -> None:
    collector = make(AutoresetMode.SAME_STEP, True)
    first, _ = collector.collect(1)
    second, _ = collector.collect(1)
    np.testing.assert_array_equal(first.next_extras["value"], second.extras["value"][0])


def test_an_environment_that_does_not_say_how_it_resets_is_refused() -> None:
    env = SyncVectorEnv([lambda: Counting(2, False)])
    env.metadata = {**env.metadata, "autoreset_mode": None}
    with pytest.raises(UserError, match="autoreset_mode"):
        Collector(env, StepCounter(), np.random.default_rng(0), [0])
