"""Environments as the adapted algorithms see them."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from sb3_cases import CLIPPED, loop_on
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from palaestra.agents.loop import TrainingEnvs
from palaestra.agents.sb3.environments import EpisodeSums, RecordedVecEnv, make_envs
from palaestra.agents.sb3.native_envs import NativeVecEnv
from palaestra.errors import UserError
from palaestra.seeding import Role, integers

NATIVE = ["palaestra/BernoulliBandit-v0", "palaestra/TicTacToe-v0"]


@pytest.mark.parametrize("env_id", NATIVE)
def test_native_environments_tell_what_single_ones_tell(env_id: str) -> None:
    native = make_envs(TrainingEnvs(env_id, 3, (), {}, 1), seed=5)
    assert isinstance(native, NativeVecEnv)
    single = DummyVecEnv([lambda: Monitor(gymnasium.make(env_id))] * 3)
    single._seeds = [*integers(5, Role.ENV, range(3))]
    native.seed(5)
    np.testing.assert_array_equal(native.reset(), single.reset())
    rng, ended = np.random.default_rng(0), 0
    for _ in range(250):
        action = rng.integers(native.action_space.n, size=3)
        ours, theirs = native.step(action), single.step(action)
        for a, b in zip(ours[:3], theirs[:3], strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
        for row in np.flatnonzero(ours[2]):
            a, b = ours[3][row], theirs[3][row]
            np.testing.assert_array_equal(a["terminal_observation"], b["terminal_observation"])
            assert a["TimeLimit.truncated"] == b["TimeLimit.truncated"]
            assert a["episode"]["l"] == b["episode"]["l"]
            assert round(a["episode"]["r"], 6) == b["episode"]["r"]
            ended += 1
    assert ended


def test_single_environments_are_seeded_as_the_library_does() -> None:
    ours = make_envs(TrainingEnvs("CartPole-v1", 3, (), {}, 1), seed=7)
    assert isinstance(ours, RecordedVecEnv)
    theirs = make_vec_env("CartPole-v1", n_envs=3, seed=7)
    np.testing.assert_array_equal(ours.reset(), theirs.reset())
    assert [env.action_space.sample() for env in ours.envs] == [
        env.action_space.sample() for env in theirs.envs
    ]


def test_sums_that_the_environment_names_reach_the_episodes() -> None:
    loop = loop_on("palaestra/BernoulliBandit-v0", "sb3/ppo", **CLIPPED | {"n_steps": 104})
    episodes = loop.advance().episodes
    assert episodes.sums.keys() == {"regret"}
    assert len(episodes.sums["regret"]) == len(episodes.env) > 0
    assert (episodes.sums["regret"] > 0).all()


def test_single_environments_sum_the_same() -> None:
    env_id = "palaestra/BernoulliBandit-v0"
    native = make_envs(TrainingEnvs(env_id, 1, (), {}, 1), seed=5)
    single = DummyVecEnv([lambda: EpisodeSums(Monitor(gymnasium.make(env_id)), ("regret",))])
    single._seeds = [*integers(5, Role.ENV, range(1))]
    native.seed(5)
    native.reset()
    single.reset()
    found: list[list[float]] = [[], []]
    for t in range(250):
        for envs, regrets in zip((native, single), found, strict=True):
            _, _, done, infos = envs.step(np.array([t % 3]))
            regrets += [infos[0]["episode"]["regret"]] if done[0] else []
    assert found[0] == found[1] != []


def test_wrappers_by_name_and_options_are_put_around_any_environment() -> None:
    wrappers = [
        {"name": "reward-clip", "low": -0.5, "high": 0.5},
        {"name": "frame-stack", "frames": 3},
    ]
    loop = loop_on("CartPole-v1", "sb3/ppo", wrappers=wrappers, **CLIPPED)
    assert np.prod(loop.envs.observation_space.shape) == 3 * 4
    episodes = loop.advance().episodes
    # CartPole pays 1 a step: what is recorded is not what is learned from.
    np.testing.assert_array_equal(episodes.returns, episodes.length)
    assert set(loop.algorithm.rollout_buffer.rewards.ravel()) == {0.5}


def test_an_unknown_wrapper_is_named() -> None:
    with pytest.raises(UserError, match="unknown wrapper 'frame-stac'"):
        loop_on("CartPole-v1", "sb3/ppo", wrappers=["frame-stac"], **CLIPPED)


class Drifting(gymnasium.Env[Any, Any]):
    """An environment whose episodes do not follow from seed and actions."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))
    action_space = gymnasium.spaces.Discrete(2)
    count = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self._observe(), 0.0, False, False, {}

    def _observe(self) -> np.ndarray:
        Drifting.count += 1
        return np.array([Drifting.count], np.float32)


def test_environments_that_cannot_be_restored_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = gymnasium.envs.registration.EnvSpec("Drifting-v0", entry_point=Drifting)
    monkeypatch.setitem(gymnasium.registry, "Drifting-v0", spec)
    loop = loop_on("Drifting-v0", "sb3/ppo", **CLIPPED)
    loop.advance()
    with pytest.raises(UserError, match="Drifting-v0 is not deterministic"):
        loop_on("Drifting-v0", "sb3/ppo", **CLIPPED).load_state_dict(loop.state_dict())
    loop.reset_environments()
    fresh = loop_on("Drifting-v0", "sb3/ppo", **CLIPPED)
    fresh.load_state_dict(loop.state_dict())
    assert fresh.advance().agent_steps == 32
