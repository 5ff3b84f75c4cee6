"""Normalised observations and rewards: the numbers of VecNormalize, frozen, final, restored."""

import copy
from typing import Any

import gymnasium
import numpy as np
import pytest
from env_cases import NextStepWalks, Walk
from gymnasium import spaces

from palaestra.envs.recorded import RowsVectorEnv
from palaestra.envs.state import (
    freeze_statistics,
    get_state,
    is_restorable,
    load_statistics,
    merge_statistics,
    set_state,
    wrapper_statistics,
)
from palaestra.envs.trees import equal_trees
from palaestra.envs.wrappers import (
    VectorActionMask,
    VectorFrameStack,
    VectorNormaliseObservation,
    VectorNormaliseReward,
)
from palaestra.errors import UserError

N = 3


def rows() -> RowsVectorEnv:
    return RowsVectorEnv([Walk] * N)


def both(**options: Any) -> Any:
    return VectorNormaliseReward(
        VectorNormaliseObservation(rows(), clip=2.0), clip=3.0, discount=0.9, **options
    )


def play(envs: Any, steps: int, start: int = 0) -> list[Any]:
    return [copy.deepcopy(envs.step(np.full(N, (start + t) % 3))) for t in range(steps)]


@pytest.mark.parametrize("training", [True, False])
def test_the_numbers_are_those_of_vec_normalize_on_the_same_stream(training: bool) -> None:
    from stable_baselines3.common.vec_env import VecNormalize

    from palaestra.agents.sb3.native_envs import NativeVecEnv

    class Together(NativeVecEnv):
        """Rewards as they come: VecNormalize would see them rounded to float32."""

        def step_wait(self) -> Any:
            observation, _, done, infos = super().step_wait()
            return observation, self.paid, done, infos

    inner = rows()
    stream = inner.step

    def noted(actions: Any) -> Any:
        result = stream(actions)
        theirs.venv.paid = result[1]  # type: ignore[attr-defined]
        final = result[4].get("final_obs")
        if final is not None:
            result[4]["final_obs"] = np.stack([x if x is not None else np.zeros(3) for x in final])
        return result

    inner.step = noted  # type: ignore[method-assign]
    theirs = VecNormalize(Together(inner), clip_obs=2.0, clip_reward=3.0, gamma=0.9)
    ours = both()
    theirs.venv.envs.reset(seed=4)  # type: ignore[attr-defined]
    theirs.reset()
    ours.reset(seed=4)
    ours.reset()
    # The reset before counts in ours alone.
    fresh = {"normalise-observation": _empty(ours.env), "normalise-reward": _empty(ours)}
    load_statistics(ours, fresh, frozen=False)
    first = theirs.reset()
    second, _ = ours.reset()
    theirs.obs_rms = type(theirs.obs_rms)(shape=(3,))
    load_statistics(ours, fresh, frozen=False)
    assert first.shape == second.shape
    ended = 0
    for t in range(80):
        if t == 40 and not training:
            theirs.training = False
            freeze_statistics(ours)
        actions = np.full(N, t % 3)
        x, r, done, infos = theirs.step(actions)
        y, s, terminated, _, info = ours.step(actions)
        np.testing.assert_allclose(y, x, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(s, r, rtol=1e-6)
        assert (done == terminated).all()
        for row in np.flatnonzero(done):
            ended += 1
            final = infos[row]["terminal_observation"]
            np.testing.assert_allclose(info["final_obs"][row], final, rtol=1e-6, atol=1e-7)
    assert ended > 10


def _empty(wrapper: Any) -> Any:
    return {
        leaf: {"mean": 0 * s["mean"], "var": 0 * s["var"], "count": 0.0}
        for leaf, s in wrapper.statistics().items()
    }


def test_normalised_observations_lie_in_their_space_and_spread_as_they_should() -> None:
    envs = VectorNormaliseObservation(RowsVectorEnv([Walk] * 64), clip=50.0)
    envs.reset(seed=0)
    seen = [envs.step(np.zeros(64, int))[0] for _ in range(150)][-50:]
    assert envs.observation_space.contains(seen[-1])
    # 3200 correlated samples: an effective number of some 300 gives an error of 0.06.
    assert abs(np.mean(seen)) < 0.25
    assert abs(np.std(seen) - 1) < 0.25


def test_raw_rewards_stay_in_the_infos_and_returns_begin_anew_with_each_episode() -> None:
    bare, envs = rows(), both()
    bare.reset(seed=1)
    envs.reset(seed=1)
    returns, all_returns = np.zeros(N), []
    for t in range(60):
        actions = np.full(N, t % 3)
        _, raw, terminated, _, _ = bare.step(actions)
        _, reward, _, _, info = envs.step(actions)
        returns = 0.9 * returns + raw
        all_returns.append(returns.copy())
        returns[terminated] = 0
        assert info["raw_reward"].dtype == np.float64
        assert (info["raw_reward"] == raw).all()
        # The prior of 1e-4 samples weighs less than a part in a million of 180.
        expected = raw / np.std(all_returns)
        np.testing.assert_allclose(reward, np.clip(expected, -3, 3), rtol=2e-5 if t > 5 else 2e-2)


def test_final_observations_are_normalised_like_any_other() -> None:
    bare, envs = rows(), VectorNormaliseObservation(rows())
    bare.reset(seed=1)
    envs.reset(seed=1)
    ended = 0
    for _ in range(60):
        *_, info = bare.step(np.zeros(N, int))
        *_, seen = envs.step(np.zeros(N, int))
        statistics = envs.statistics()[""]
        for row in np.flatnonzero(info.get("_final_obs", [])):
            ended += 1
            raw = (info["final_obs"][row] - statistics["mean"]) / np.sqrt(statistics["var"] + 1e-8)
            np.testing.assert_allclose(seen["final_obs"][row], np.clip(raw, -10, 10), rtol=1e-3)
        assert (seen.get("_final_obs", 0) == info.get("_final_obs", 0)) is not False
    assert ended > 5


def test_the_state_continues_bit_for_bit_in_a_fresh_copy() -> None:
    envs, fresh = both(), both()
    assert is_restorable(envs)
    envs.reset(seed=3)
    play(envs, 30)
    state = copy.deepcopy(get_state(envs))
    assert set(state) == {"env", "own"}
    straight = play(envs, 30)
    set_state(fresh, state)
    assert equal_trees(play(fresh, 30), straight)
    assert equal_trees(get_state(fresh), get_state(envs))


def test_frozen_statistics_are_carried_over_and_change_no_more() -> None:
    envs, evaluation = both(), both()
    envs.reset(seed=3)
    play(envs, 30)
    statistics = wrapper_statistics(envs)
    assert set(statistics) == {"normalise-observation", "normalise-reward"}
    load_statistics(evaluation, statistics)
    evaluation.reset(seed=9)
    play(evaluation, 30)
    assert equal_trees(wrapper_statistics(evaluation), statistics)
    play(envs, 1)
    assert not equal_trees(wrapper_statistics(envs), statistics)
    again = both()
    set_state(again, get_state(evaluation))
    play(again, 3)
    assert equal_trees(wrapper_statistics(again), statistics)


def test_workers_together_have_seen_what_one_environment_would_have_seen() -> None:
    workers = [both(), both()]
    seen = []
    for seed, envs in enumerate(workers):
        bare = rows()
        seen.append(bare.reset(seed=seed)[0])
        envs.reset(seed=seed)
        for t in range(20):
            seen.append(bare.step(np.full(N, t % 3))[0])
        play(envs, 20)
    merged = merge_statistics([wrapper_statistics(envs) for envs in workers])
    x = np.concatenate(seen).astype(np.float64)
    found = merged["normalise-observation"][""]
    np.testing.assert_allclose(found["mean"], x.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(found["var"], x.var(axis=0), rtol=1e-9)


def test_statistics_of_other_observations_or_none_are_refused_by_name() -> None:
    envs = both()
    with pytest.raises(UserError, match="normalise-observation: there are no statistics"):
        load_statistics(envs, {})
    other = VectorNormaliseObservation(RowsVectorEnv([lambda: Walk(size=2)] * N))
    with pytest.raises(UserError, match=r"normalise-observation.*\(2,\).*\(3,\)"):
        load_statistics(envs.env, wrapper_statistics(other))


def test_under_a_next_step_autoreset_the_ignored_step_pays_nothing() -> None:
    bare, envs = NextStepWalks(N), VectorNormaliseReward(NextStepWalks(N), discount=0.5)
    bare.reset(seed=2)
    envs.reset(seed=2)
    returns, over, counted = np.zeros(N), np.zeros(N, bool), []
    for _ in range(60):
        _, raw, terminated, _, _ = bare.step(np.zeros(N, int))
        envs.step(np.zeros(N, int))
        returns = np.where(over, 0.0, 0.5 * returns + raw)
        counted.extend(returns[~over])
        returns[terminated] = 0.0
        over = terminated
    found = envs.statistics()["reward"]
    assert found["count"] == len(counted)
    np.testing.assert_allclose(found["var"], np.var(counted), rtol=1e-9)


def test_only_boxes_are_normalised_and_the_mask_of_actions_is_left_alone() -> None:
    class Mixed(Walk):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = spaces.Dict(  # type: ignore[assignment]
                {"a/b": spaces.Box(-9, 9, (2,)), "kind": spaces.Discrete(3)}
            )

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            gymnasium.Env.reset(self, seed=seed)
            return self._look()

        def step(self, action: Any) -> Any:
            observation, info = self._look()
            return observation, 0.0, False, False, info

        def _look(self) -> Any:
            x = self.np_random.uniform(-9, 9, 2).astype(np.float32)
            return {"a/b": x, "kind": 2}, {"action_mask": np.array([1, 0, 1], np.int8)}

    envs = VectorNormaliseObservation(VectorActionMask(RowsVectorEnv([Mixed] * N)))
    envs.reset(seed=0)
    for _ in range(20):
        observation, *_ = envs.step(np.zeros(N, int))
    assert (observation["action_mask"] == [1, 0, 1]).all()
    assert (observation["observation"]["kind"] == 2).all()
    assert envs.observation_space.contains(observation)
    assert set(envs.statistics()) == {"/a/b"}
    with pytest.raises(UserError, match="cannot be normalised; accepted: Box"):
        VectorNormaliseObservation(RowsVectorEnv([lambda: gymnasium.make("Taxi-v4")] * 2))


def test_a_wrapper_outside_sees_normalised_frames() -> None:
    envs = VectorFrameStack(VectorNormaliseObservation(rows()), frames=2)
    alone = VectorNormaliseObservation(rows())
    envs.reset(seed=0)
    alone.reset(seed=0)
    for _ in range(10):
        stacked, *_ = envs.step(np.zeros(N, int))
        assert (stacked[:, -1] == alone.step(np.zeros(N, int))[0]).all()
