"""Actors of the adapted algorithms: the same networks, randomness from the given generator."""

import pickle
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_cases import ALGORITHMS, agent_on, finish, loop_on

from palaestra.agents.base import make
from palaestra.envs.suites import Suite, Task
from palaestra.errors import UserError
from palaestra.experience.fragment import map_tree
from palaestra.runs.evaluation.evaluate import evaluate

N = 5
BOX = spaces.Box(-1, 1, (3,), np.float32)


def actor_of(observation: gymnasium.Space, action: gymnasium.Space, name: str = "sb3/ppo") -> Any:
    return make(name, observation, action, net_arch=[8]).make_actor()


def act(actor: Any, observation: Any, mode: str = "sample", seed: int = 0) -> np.ndarray:
    rows = len(next(iter(observation.values())) if isinstance(observation, dict) else observation)
    state, reset = actor.initial_state(rows), np.ones(rows, bool)
    return actor.act(observation, state, reset, np.random.default_rng(seed), mode)[0]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_greedy_actions_are_those_that_the_trained_algorithm_predicts(name: str) -> None:
    loop = loop_on("CartPole-v1", name, **ALGORITHMS[name])
    finish(loop)
    actor = agent_on("CartPole-v1", name, **ALGORITHMS[name]).make_actor()
    actor.load_weights(loop.weights())
    rng = np.random.default_rng(0)
    state, theirs = actor.initial_state(N), None
    for t in range(6):
        observation = rng.normal(size=(N, 4)).astype(np.float32)
        reset = rng.random(N) < (1 if t == 0 else 0.3)
        action, state, extras = actor.act(observation, state, reset, rng, "greedy")
        expected, theirs = loop.algorithm.predict(
            observation, theirs, episode_start=reset, deterministic=True
        )
        np.testing.assert_array_equal(action, expected)
        assert extras == {}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_new_actor_has_the_weights_that_the_algorithm_starts_from(name: str) -> None:
    weights = loop_on("CartPole-v1", name, **ALGORITHMS[name]).weights()
    network = agent_on("CartPole-v1", name, **ALGORITHMS[name]).make_actor().network
    assert {name for name, _ in network.named_parameters()} == weights.keys()
    for key, parameter in network.named_parameters():
        np.testing.assert_array_equal(parameter.numpy(), weights[key])


@pytest.mark.parametrize("name", ALGORITHMS)
def test_sampling_depends_on_the_given_generator_alone(name: str) -> None:
    actor = agent_on("CartPole-v1", name, **ALGORITHMS[name]).make_actor()
    observation = np.zeros((200, 4), np.float32)
    before = torch.get_rng_state()
    first = act(actor, observation)
    np.testing.assert_array_equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    np.testing.assert_array_equal(act(actor, observation), first)
    assert (act(actor, observation, seed=1) != first).any()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_actors_survive_the_way_to_another_process(name: str) -> None:
    actor = agent_on("CartPole-v1", name, **ALGORITHMS[name]).make_actor()
    observation = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    copy = pickle.loads(pickle.dumps(actor))
    np.testing.assert_array_equal(act(copy, observation), act(actor, observation))


def test_samples_have_the_frequencies_of_the_policy() -> None:
    actor = actor_of(BOX, spaces.Discrete(3))
    with torch.no_grad():
        actor.network.action_net.bias.copy_(torch.tensor([0.0, 1.0, -1.0]))
    observation = np.zeros((20_000, 3), np.float32)
    x, _ = actor.network.obs_to_tensor(observation[:1])
    p = actor.network.get_distribution(x).distribution.probs[0].numpy()
    found = np.bincount(act(actor, observation), minlength=3) / 20_000
    # Four standard errors of a frequency.
    assert (np.abs(found - p) < 4 * np.sqrt(p * (1 - p) / 20_000)).all()


def test_normal_actions_have_the_policys_mean_and_deviation() -> None:
    actor = actor_of(BOX, spaces.Box(-100, 100, (2,), np.float32))
    observation = np.zeros((20_000, 3), np.float32)
    found = act(actor, observation)
    assert (np.abs(found.mean(0) - act(actor, observation[:1], "greedy")[0]) < 4 / 141).all()
    assert (np.abs(found.std(0) - 1) < 4 / 200).all()


def test_value_networks_explore_at_the_final_rate_in_sample_mode() -> None:
    actor = make(
        "sb3/dqn", BOX, spaces.Discrete(4), net_arch=[8], exploration_final_eps=0.4
    ).make_actor()
    observation = np.zeros((20_000, 3), np.float32)
    greedy = act(actor, observation, "greedy")
    assert len(set(greedy)) == 1
    share = (act(actor, observation) != greedy).mean()
    assert abs(share - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 20_000)


SPACES: list[tuple[gymnasium.Space, gymnasium.Space]] = [
    (BOX, spaces.Box(-2, 3, (2, 2), np.float32)),
    (spaces.Discrete(4), spaces.MultiDiscrete([2, 3])),
    (spaces.MultiDiscrete([3, 2]), spaces.MultiBinary(3)),
    (spaces.MultiBinary(3), spaces.Discrete(2)),
    (spaces.Dict({"a": BOX, "b": spaces.Discrete(3)}), spaces.Discrete(2)),
    (spaces.Box(0, 255, (40, 40, 3), np.uint8), spaces.Discrete(2)),
]


@pytest.mark.parametrize("mode", ["sample", "greedy"])
@pytest.mark.parametrize(("observation", "action"), SPACES, ids=lambda s: type(s).__name__)
def test_actions_have_the_shape_and_type_of_their_space(
    observation: gymnasium.Space, action: gymnasium.Space, mode: str
) -> None:
    batch = gymnasium.vector.utils.batch_space(observation, N).sample()
    batch = map_tree(np.asarray, dict(batch) if isinstance(batch, dict) else batch)
    for name in ("sb3/ppo", "sb3/recurrent-ppo"):
        taken = act(actor_of(observation, action, name), batch, mode)
        assert (taken.shape, taken.dtype) == ((N, *(action.shape or ())), action.dtype)
        if not isinstance(action, spaces.Box):
            assert all(action.contains(row) for row in taken)


def test_weights_of_another_network_are_refused() -> None:
    weights = loop_on("CartPole-v1", "sb3/ppo", n_steps=16, batch_size=16).weights()
    with pytest.raises(UserError, match="do not fit the network"):
        agent_on("CartPole-v1", "sb3/ppo", net_arch=[7]).make_actor().load_weights(weights)


@pytest.mark.parametrize("name", ["sb3/dqn", "sb3/recurrent-ppo"])
def test_evaluation_plays_whole_episodes(name: str) -> None:
    agent = agent_on("CartPole-v1", name, **ALGORITHMS[name])
    task = Task("cart/0", "CartPole-v1", {}, 0, 500, "here", episodes=4)
    suite = Suite("cart", 1, (task,), "first episodes")
    found = evaluate(agent, suite, seeds=2, agent=name, mode="sample")
    assert found.mode == "sample"
    assert evaluate(agent, suite, seeds=2, agent=name, mode="sample").aggregate == found.aggregate
