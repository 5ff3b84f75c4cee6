"""What environments return is looked at: numbers that are not finite, and errors."""

import copy
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from palaestra.agents.returns import fragment_advantage
from palaestra.errors import EnvironmentFailure, NotFiniteError
from palaestra.runs.rollouts.collector import Collector
from tests.runs.rollouts.lockstep import Deciding, Lockstep, by_hand, unpacked


class Failing(gymnasium.Env):
    """Observes (0, episode, step) over episodes of 6 steps; something is wrong at (1, 3)."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(5)

    def __init__(self, what: str = "", value: Any = np.nan, at: tuple[int, int] = (1, 3)) -> None:
        self.what, self.value, self.at, self.episode = what, value, at, -1

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.episode, self.t = self.episode + 1, 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        bad = (self.episode, self.t) == self.at
        if bad and self.what == "error":
            raise ConnectionResetError("the simulator has gone")
        observation, reward = self._observe(), 1.0
        if bad and self.what == "observation":
            observation[1] = self.value
        if bad and self.what == "reward":
            reward = self.value
        return observation, reward, self.t == 6, False, {}

    def _observe(self) -> np.ndarray:
        return np.array([0, self.episode, self.t], np.float32)


def collector(
    what: str, value: Any = np.nan, *, policy: Any = "stop", at: tuple[int, int] = (1, 3)
) -> Collector:
    env = SyncVectorEnv(
        [lambda: Failing(), lambda: Failing(what, value, at)],
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    return Collector(env, Deciding(), np.random.default_rng(0), [0, 1], on_bad_transition=policy)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, None])
def test_a_reward_that_is_not_finite_stops_the_run_by_name(value: Any) -> None:
    with pytest.raises(NotFiniteError, match=r"row 1, step 3 of its episode: its reward is"):
        collector("reward", value).collect(30)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("at", [(1, 3), (1, 6)])
def test_an_observation_that_is_not_finite_stops_the_run_by_name(value: Any, at: Any) -> None:
    message = rf"row 1, step {at[1]} of its episode: its observation holds {value}"
    with pytest.raises(NotFiniteError, match=message):
        collector("observation", value, at=at).collect(30)


@pytest.mark.parametrize("what", ["reward", "observation"])
@pytest.mark.parametrize("cuts", [[30], [9, 21], [8, 1, 1, 20], [1] * 30])
@pytest.mark.parametrize("at", [(1, 1), (1, 3), (1, 6)])
def test_a_dropped_episode_leaves_what_came_before_it_and_the_other_rows(
    what: str, cuts: list[int], at: tuple[int, int]
) -> None:
    bad, good = collector(what, policy="drop_episode", at=at), collector("")
    fragments = [bad.collect(steps) for steps in cuts]
    whole = [good.collect(steps) for steps in cuts]
    kept, expected = ([], [])
    for target, source in ((kept, fragments), (expected, whole)):
        for fragment, _ in source:
            for t in range(fragment.length[1]):
                seen = fragment.observation[t, 1]
                target.append(
                    (*seen.tolist(), float(fragment.reward[t, 1]), bool(fragment.reset[t, 1]))
                )
    left_out = [entry for entry in expected if entry[1] == at[0] and entry[2] >= at[1] - 1]
    assert len(left_out) == 6 - (at[1] - 1)
    assert kept == [entry for entry in expected if entry not in left_out]
    for (one, _), (other, _) in zip(fragments, whole, strict=True):
        n = other.length[0]
        np.testing.assert_array_equal(one.observation[:n, 0], other.observation[:n, 0])
        for part in (one.reward, *one.extras.values()):
            assert np.isfinite(part).all()
        if one.decisions:
            assert np.isfinite(fragment_advantage(one, 0.9, 0.9)).all()
    episodes = np.concatenate([batch.env for _, batch in fragments])
    assert (episodes == 1).sum() == 30 // 6 - 1
    assert bad.dropped == 1


def test_the_last_good_entry_bootstraps_from_what_followed_it() -> None:
    fragment, _ = collector("reward", policy="drop_episode").collect(12)
    (at,) = np.flatnonzero(fragment.final_index[1][fragment.truncated[fragment.final_index]] == 1)
    index = np.flatnonzero(fragment.truncated[fragment.final_index])[at]
    np.testing.assert_array_equal(fragment.final_observation[index], [0, 1, 2])


def test_a_checkpoint_within_a_dropped_episode_changes_nothing() -> None:
    straight = collector("reward", policy="drop_episode")
    straight.collect(10)
    state = copy.deepcopy(straight.state_dict())
    assert state["spoiled"].tolist() == [False, True]


def test_where_all_that_ended_are_dropped_nothing_is_final() -> None:
    env = SyncVectorEnv([lambda: Failing("reward")], autoreset_mode=AutoresetMode.SAME_STEP)
    alone = Collector(
        env, Deciding(), np.random.default_rng(0), [0], on_bad_transition="drop_episode"
    )
    fragment, episodes = alone.collect(20)
    assert fragment.length.tolist() == [20 - 4]
    assert episodes.length.tolist() == [6, 6]


def test_errors_of_an_environment_are_named() -> None:
    with pytest.raises(EnvironmentFailure, match="ConnectionResetError: the simulator has gone"):
        collector("error").collect(30)


def test_rows_in_the_middle_of_an_action_are_dropped_too() -> None:
    class Spoiling(Lockstep):
        def step(self, actions: Any) -> Any:
            shown, reward, terminated, truncated, info = super().step(actions)
            if self.episode[0] == 1 and self.t[0] == 4:
                reward[0] = np.inf
            return shown, reward, terminated, truncated, info

    env = Spoiling(2, ((2, 9), (7, 1)))
    spoilt = Collector(
        env,
        Deciding(),
        np.random.default_rng(0),
        [0, 1],
        infos=("pay",),
        on_bad_transition="drop_episode",
    )
    fragments = [spoilt.collect(steps)[0] for steps in (5, 20)]
    assert unpacked(fragments, 1) == by_hand(env, 1, 25)
    entries, expected = unpacked(fragments, 0), by_hand(env, 0, 25)
    before = [e for e in expected if e.observation[1] == 0 or e.observation[2] + e.duration < 4]
    assert [e.observation for e in entries[: len(before[:4])]] == [
        e.observation for e in before[:4]
    ]
    assert spoilt.dropped >= 1
