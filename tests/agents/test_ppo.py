"""PPO: the ratio law, invalid steps, determinism, state round trip, and learning on tiny tasks."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from palaestra.agents import make
from palaestra.agents.ppo import PPO, PPOLearner, join_fragments, ppo_loss
from palaestra.policies import PolicySpec
from palaestra.runs.rollouts.collector import Collector

POLICIES = {
    "mlp": {"hidden_sizes": [16]},
    "gru": {"hidden_size": 16},
    "attention": {"width": 16, "heads": 2, "layers": 1, "context": 8},
}


class Corridor(gymnasium.Env):
    """Walk right to the end of a corridor; reward 1 there, cut after 12 steps."""

    observation_space = gymnasium.spaces.Box(0, 1, (4,), np.float32)
    action_space: gymnasium.Space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.place = self.t = 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        self.place = max(0, self.place + (1 if action == 1 else -1))
        return self._observe(), float(self.place == 3), self.place == 3, self.t == 12, {}

    def _observe(self) -> np.ndarray:
        return np.eye(4, dtype=np.float32)[self.place]


class Target(Corridor):
    """One continuous action; the reward is higher the nearer it is to 0.5."""

    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def step(self, action: Any) -> Any:
        self.t += 1
        return self._observe(), -float((action[0] - 0.5) ** 2), False, self.t == 12, {}


class Masked(Corridor):
    """Walking left is forbidden, so that every legal policy walks right."""

    observation_space = gymnasium.spaces.Dict(
        observation=Corridor.observation_space, action_mask=gymnasium.spaces.MultiBinary(2)
    )

    def _observe(self) -> Any:
        return {"observation": super()._observe(), "action_mask": np.array([0, 1], np.int8)}


def set_up(
    env: type[gymnasium.Env], policy: str, num_envs: int = 6, **options: Any
) -> tuple[Collector, PPOLearner]:
    agent = make(
        "ppo",
        env.observation_space,
        env.action_space,
        policy=PolicySpec(policy, POLICIES[policy]),
        seed=1,
        **({"num_epochs": 2, "minibatch_size": 32} | options),
    )
    assert isinstance(agent, PPO)
    vector = SyncVectorEnv([env] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)
    seeds = list(range(num_envs))
    collector = Collector(vector, agent.make_actor(), np.random.default_rng(0), seeds)
    return collector, agent.make_learner()


@pytest.mark.parametrize("env", [Corridor, Target, Masked])
@pytest.mark.parametrize("policy", POLICIES)
def test_what_was_acted_is_what_is_learned_from(env: type[gymnasium.Env], policy: str) -> None:
    """Without a step of learning the ratio is 1, on fragments that begin inside episodes too."""
    collector, learner = set_up(env, policy)
    for _ in range(3):
        fragment, _ = collector.collect(9)
        batch = join_fragments([fragment], learner.config)
        output, _ = learner.policy(torch_tree(fragment.observation), batch.state, batch.reset.t())
        log_prob = output.distribution.log_prob(batch.action.transpose(0, 1)).t()
        torch.testing.assert_close(log_prob, batch.log_prob, rtol=0, atol=1e-5)
        value = torch.from_numpy(fragment.extras["value"])
        torch.testing.assert_close(output.value.t(), value, rtol=0, atol=1e-5)


def torch_tree(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {key: torch_tree(value) for key, value in observation.items()}
    return torch.from_numpy(observation).transpose(0, 1)


def test_padding_has_no_part_in_the_loss() -> None:
    collector, learner = set_up(Corridor, "gru")
    fragment, _ = collector.collect(8)
    fragment.length[[0, 2]] = 5, 3
    losses = []
    for junk in (0.0, 1e6):
        fragment.extras["log_prob"][5:, 0] = fragment.extras["value"][3:, 2] = junk
        fragment.reward[3:, 2] = fragment.observation[5:, 0] = junk
        batch = join_fragments([fragment], learner.config)
        minibatch = batch.sequences(torch.arange(6))
        output, _ = learner.policy(minibatch.observation, minibatch.state, minibatch.reset)
        losses.append(ppo_loss(output, minibatch, learner.config, 0.01)[0].item())
    assert losses[0] == losses[1]


def test_flat_batches_hold_the_entries_alone() -> None:
    collector, learner = set_up(Corridor, "mlp")
    fragment, _ = collector.collect(8)
    fragment.length[2] = 7
    batch = join_fragments([fragment], learner.config)
    flat = batch.flatten()
    assert flat.valid is None
    assert len(flat.action) == 8 * 6 - 1
    torch.testing.assert_close(flat.advantage, batch.advantage[batch.valid])


def test_rows_of_unequal_length_are_joined_and_empty_ones_left_out() -> None:
    collector, learner = set_up(Corridor, "gru")
    long, _ = collector.collect(8)
    short, _ = collector.collect(3)
    long.length[1], short.length[4] = 0, 2
    batch = join_fragments([long, short], learner.config)
    assert batch.action.shape == (8, 11)
    np.testing.assert_array_equal(batch.valid.sum(0), [8] * 5 + [3] * 4 + [2, 3])
    np.testing.assert_array_equal(batch.action[:3, 5:], short.action)
    assert not batch.advantage[~batch.valid].any()
    assert len(batch.state.hidden if hasattr(batch.state, "hidden") else batch.reset.T) == 11


@pytest.mark.parametrize("policy", POLICIES)
def test_the_order_of_fragments_side_by_side_is_that_of_their_environments(policy: str) -> None:
    collector, learner = set_up(Corridor, policy)
    first, _ = collector.collect(4)
    second, _ = collector.collect(4)
    batch = join_fragments([first, second], learner.config)
    np.testing.assert_array_equal(batch.action[:, 6:], second.action)
    one_state = batch.state.rows(slice(6, None)).tensors()
    for path, tensor in second.state.tensors().items():
        torch.testing.assert_close(one_state[path], tensor.clone())


@pytest.mark.parametrize("policy", POLICIES)
def test_a_learner_goes_on_exactly_where_it_was_saved(policy: str) -> None:
    collector, learner = set_up(Corridor, policy)
    fragments = [collector.collect(8)[0] for _ in range(4)]
    for fragment in fragments[:2]:
        learner.update([fragment])
    _, other = set_up(Corridor, policy)
    other.load_state_dict(learner.state_dict())
    for fragment in fragments[2:]:
        assert learner.update([fragment]) == other.update([fragment])
    for name, weight in learner.weights().items():
        np.testing.assert_array_equal(weight, other.weights()[name], err_msg=name)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seed_gives_the_same_weights(policy: str) -> None:
    found = []
    for _ in range(2):
        collector, learner = set_up(Corridor, policy)
        for _ in range(3):
            learner.update([collector.collect(8)[0]])
            collector.actor.load_weights(learner.weights())
        found.append(learner.weights())
    for name, weight in found[0].items():
        np.testing.assert_array_equal(weight, found[1][name], err_msg=name)


def mean_reward(env: type[gymnasium.Env], policy: str, updates: int) -> float:
    options = {"learning_rate": 1e-2, "gamma": 0.9, "num_epochs": 4}
    collector, learner = set_up(env, policy, 8, **options)
    reward = 0.0
    for i in range(updates):
        fragment, _ = collector.collect(16)
        learner.update([fragment])
        collector.actor.load_weights(learner.weights())
        if i >= updates - 5:
            reward += float(fragment.reward.mean()) / 5
    return reward


@pytest.mark.parametrize("policy", POLICIES)
def test_it_learns_to_walk_to_the_end_of_a_corridor(policy: str) -> None:
    # The best is one reward in three steps; uniform play gets one in about eleven.
    assert mean_reward(Corridor, policy, 30) > 0.3


def test_it_learns_a_continuous_action() -> None:
    # Standard deviation 1 around 0, clipped to [-1, 1], pays about -0.75.
    assert mean_reward(Target, "mlp", 60) > -0.15


def test_a_forbidden_action_is_never_taken() -> None:
    collector, _ = set_up(Masked, "gru")
    fragment, _ = collector.collect(30)
    assert (fragment.action == 1).all()
