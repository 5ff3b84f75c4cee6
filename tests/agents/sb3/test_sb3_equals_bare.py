"""The adapted algorithms learn what the bare ones learn, bit for bit."""

from typing import Any

import pytest
from sb3_cases import ALGORITHMS, TOTAL_STEPS, assert_same, finish, loop_on
from sb3_contrib import QRDQN, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.env_util import make_vec_env

BARE: dict[str, Any] = {
    "sb3/ppo": PPO,
    "sb3/a2c": A2C,
    "sb3/dqn": DQN,
    "sb3/qrdqn": QRDQN,
    "sb3/recurrent-ppo": RecurrentPPO,
}
OF_POLICY = ("net_arch", "n_quantiles", "lstm_hidden_size")


def train_bare(
    name: str, env_id: str, options: dict[str, Any], num_envs: int = 2, **env_options: Any
) -> Any:
    envs = make_vec_env(env_id, n_envs=num_envs, seed=3, env_kwargs=env_options)
    policy = "MlpLstmPolicy" if name == "sb3/recurrent-ppo" else "MlpPolicy"
    of_policy = {key: options[key] for key in OF_POLICY if key in options}
    others = {key: value for key, value in options.items() if key not in OF_POLICY}
    algorithm = BARE[name](policy, envs, policy_kwargs=of_policy, seed=3, **others)
    return algorithm.learn(TOTAL_STEPS)


def assert_equal_to_bare(loop: Any, bare: Any) -> None:
    assert loop.algorithm.num_timesteps == bare.num_timesteps
    assert_same(dict(loop.algorithm.policy.state_dict()), dict(bare.policy.state_dict()))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_rounds_end_in_the_parameters_that_learn_ends_in(name: str) -> None:
    bare = train_bare(name, "CartPole-v1", ALGORITHMS[name])
    loop = loop_on("CartPole-v1", name, **ALGORITHMS[name])
    finish(loop)
    assert_equal_to_bare(loop, bare)


def test_continuous_actions_and_truncated_episodes_equal_the_bare_algorithm() -> None:
    options = ALGORITHMS["sb3/ppo"]
    bare = train_bare("sb3/ppo", "Pendulum-v1", options, max_episode_steps=20)
    loop = loop_on("Pendulum-v1", "sb3/ppo", env_options={"max_episode_steps": 20}, **options)
    finish(loop)
    assert_equal_to_bare(loop, bare)


def test_linear_schedules_are_those_of_a_callable() -> None:
    options = ALGORITHMS["sb3/ppo"]
    callables = {"learning_rate": lambda left: left * 1e-2, "clip_range": lambda left: left * 0.1}
    bare = train_bare("sb3/ppo", "CartPole-v1", options | callables)
    loop = loop_on(
        "CartPole-v1",
        "sb3/ppo",
        **options,
        learning_rate=1e-2,
        learning_rate_schedule="linear",
        clip_range=0.1,
        clip_range_schedule="linear",
    )
    rounds = finish(loop)
    assert_equal_to_bare(loop, bare)
    assert rounds[-1].metrics["train/learning_rate"] == 0


@pytest.mark.parametrize(
    ("given", "num_envs"),
    [
        ({"n_steps": 3}, 2),
        ({"train_freq": (1, "episode"), "gradient_steps": -1}, 1),
        ({"train_freq": 2, "tau": 0.5, "gradient_steps": 2}, 2),
    ],
)
def test_ways_to_replay_equal_the_bare_algorithm(given: dict[str, Any], num_envs: int) -> None:
    options = ALGORITHMS["sb3/dqn"] | given
    bare = train_bare("sb3/dqn", "CartPole-v1", options, num_envs)
    loop = loop_on("CartPole-v1", "sb3/dqn", num_envs=num_envs, **options)
    finish(loop)
    assert_equal_to_bare(loop, bare)


def test_episodes_are_those_that_the_bare_algorithm_sees() -> None:
    bare = train_bare("sb3/ppo", "CartPole-v1", ALGORITHMS["sb3/ppo"])
    rounds = finish(loop_on("CartPole-v1", "sb3/ppo", **ALGORITHMS["sb3/ppo"]))
    seen = [
        (episode_return, length)
        for found in rounds
        for episode_return, length in zip(
            found.episodes.returns, found.episodes.length, strict=True
        )
    ]
    assert seen == [(record["r"], record["l"]) for record in bare.ep_info_buffer]


def test_metrics_have_the_names_of_our_own_agents() -> None:
    clipped = {"policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction"}
    shared = {"explained_variance", "learning_rate"}
    found = loop_on("CartPole-v1", "sb3/ppo", **ALGORITHMS["sb3/ppo"]).advance().metrics
    assert {f"train/{name}" for name in clipped | shared} <= found.keys()
    assert 0 < found["train/entropy"] <= 0.6932  # nats; two actions have at most log 2
