import pickle
from statistics import NormalDist

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from palaestra.agents.base import Actor, make
from palaestra.agents.reference.baseline import Layout, argmax
from palaestra.agents.reference.exp3 import sample_rows
from palaestra.envs import make_vec
from palaestra.errors import UserError
from palaestra.runs.evaluation.play import play

PLAIN = ["greedy-locked", "try-all-greedy", "epsilon-greedy", "ucb", "thompson-gauss", "exp3"]
ALL = ["random", *PLAIN, "thompson-beta"]


def spaces(K: int, kind: str = "rl2", d: int = 0) -> tuple[gymnasium.Space, Discrete]:
    width = {"rl2": K + 2, "summary": 2 * K + 1}[kind] + d
    low, high = np.full(width, -np.inf), np.full(width, np.inf)
    return Box(low.astype(np.float32), high.astype(np.float32)), Discrete(K)


def actor(name: str, K: int = 3, kind: str = "rl2", d: int = 0, **options: object) -> Actor:
    return make(name, *spaces(K, kind, d), **options).make_actor()


def rl2(action: int | None, reward: float, t: int, K: int = 3, T: int = 10) -> np.ndarray:
    observation = np.zeros((1, K + 2), np.float32)
    if action is not None:
        observation[0, action] = 1
    observation[0, K:] = reward, t / T
    return observation


class Teller:
    """Tells an actor a made-up story, one step at a time."""

    def __init__(self, told: Actor) -> None:
        self.actor, self.t = told, 0
        self.rng = np.random.default_rng(0)
        self.state = told.initial_state(1)

    def __call__(self, action: int | None = None, reward: float = 0.0, mode: str = "sample") -> int:
        observation, reset = rl2(action, reward, self.t), np.array([self.t == 0])
        chosen, self.state, _ = self.actor.act(observation, self.state, reset, self.rng, mode)
        self.t += 1
        return int(chosen[0])


def test_ucb_tries_the_arms_in_order_and_then_adds_the_bonus() -> None:
    tell = Teller(actor("ucb"))
    assert [tell(), tell(0, 0.0), tell(1, 0.5)] == [0, 1, 2]
    assert tell(2, 0.4) == 1
    # 0 + 1, (0.5 + 0.1) / 2 + sqrt(1/2) = 1.007, 0.4 + 1
    assert tell(1, 0.1) == 2
    # 1, 1.007, (0.4 + 0.1) / 2 + 0.707 = 0.957
    assert tell(2, 0.1) == 1


def test_ucb_with_alpha_inside_the_root_counts_all_pulls() -> None:
    tell = Teller(actor("ucb", bonus="alpha", alpha=2.0))
    for arm, reward in ((None, 0), (0, 0.9), (1, 0.3)):
        tell(arm, reward)
    assert tell(2, 0.0) == 0  # 0.9 + sqrt(2 ln 3), the same bonus for all
    # t = 4: arm 0 has (0.9 + 0) / 2 + sqrt(ln 4) = 1.63, arm 1 0.3 + sqrt(2 ln 4) = 1.97
    assert tell(0, 0.0) == 1


def test_greedy_mode_of_epsilon_greedy_never_explores() -> None:
    tell = Teller(actor("epsilon-greedy", epsilon=1.0))
    tell(mode="greedy")
    assert {tell(1, 1.0, mode="greedy") for _ in range(50)} == {1}


def test_epsilon_greedy_explores_uniformly_with_its_probability() -> None:
    N, K, epsilon = 20_000, 3, 0.3
    told = actor("epsilon-greedy", epsilon=epsilon)
    rng, state = np.random.default_rng(0), told.initial_state(N)
    _, state, _ = told.act(np.zeros((N, 5), np.float32), state, np.ones(N, bool), rng, "sample")
    seen = np.repeat(rl2(1, 1.0, 1), N, axis=0)
    action, _, _ = told.act(seen, state, np.zeros(N, bool), rng, "sample")
    share, expected = (action == 1).mean(), 1 - epsilon + epsilon / K
    assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / N)


def test_thompson_gauss_has_the_conjugate_posterior() -> None:
    N = 40_000
    told = actor("thompson-gauss", K=2, prior_mean=0.5, prior_variance=0.25, sigma=2.0)
    rng, state = np.random.default_rng(0), told.initial_state(N)
    _, state, _ = told.act(np.zeros((N, 4), np.float32), state, np.ones(N, bool), rng, "sample")
    seen = np.repeat(rl2(1, 3.0, 1, K=2), N, axis=0)
    action, _, _ = told.act(seen, state, np.zeros(N, bool), rng, "sample")
    v = 1 / (1 / 0.25 + 1 / 4)
    m = v * (0.5 / 0.25 + 3 / 4)
    # P(N(m, v) > N(0.5, 0.25))
    expected = NormalDist().cdf((m - 0.5) / np.sqrt(v + 0.25))
    assert abs((action == 1).mean() - expected) < 4 * np.sqrt(0.25 / N)


def test_thompson_beta_has_the_conjugate_posterior() -> None:
    N = 40_000
    told = make("thompson-beta", *bernoulli_spaces()).make_actor()
    rng, state = np.random.default_rng(0), told.initial_state(N)
    _, state, _ = told.act(np.zeros((N, 4), np.float32), state, np.ones(N, bool), rng, "sample")
    seen = np.repeat(rl2(0, 1.0, 1, K=2), N, axis=0)
    action, _, _ = told.act(seen, state, np.zeros(N, bool), rng, "sample")
    # P(Beta(2, 1) > U) = 2/3
    assert abs((action == 0).mean() - 2 / 3) < 4 * np.sqrt(2 / 9 / N)


def bernoulli_spaces() -> tuple[gymnasium.Space, gymnasium.Space]:
    env = gymnasium.make("palaestra/BernoulliBandit-v0", K=2)
    return env.observation_space, env.action_space


def test_thompson_beta_refuses_rewards_between_0_and_1() -> None:
    with pytest.raises(UserError, match=r"-inf.*0 and 1"):
        actor("thompson-beta")
    told = Teller(make("thompson-beta", Box(0, 1, (5,), np.float32), Discrete(3)).make_actor())
    told()
    with pytest.raises(UserError, match=r"0\.5"):
        told(1, 0.5)


def test_exp3_updates_the_pulled_arm_by_its_importance() -> None:
    told = actor("exp3", gamma=0.5)
    rng, state = np.random.default_rng(0), told.initial_state(1)
    first, state, _ = told.act(rl2(None, 0, 0), state, np.array([True]), rng, "sample")
    assert state.p_tm1 == pytest.approx(1 / 3)
    _, state, _ = told.act(rl2(int(first[0]), 0.8, 1), state, np.array([False]), rng, "sample")
    difference = state.log_weights[0, first[0]] - np.delete(state.log_weights[0], first[0])
    assert np.allclose(difference, 0.5 / 3 * 0.8 / (1 / 3), atol=1e-6)


def test_rows_are_sampled_with_their_probabilities() -> None:
    p = np.repeat([[0.2, 0.0, 0.8]], 20_000, axis=0)
    drawn = sample_rows(p, np.random.default_rng(0))
    assert (drawn != 1).all()
    assert abs((drawn == 0).mean() - 0.2) < 4 * np.sqrt(0.16 / 20_000)


def test_ties_are_broken_uniformly() -> None:
    chosen = argmax(np.tile([1.0, 0.0, 1.0], (10_000, 1)), np.random.default_rng(0))
    assert (chosen != 1).all()
    assert abs((chosen == 0).mean() - 0.5) < 4 * np.sqrt(0.25 / 10_000)


def test_lin_ucb_equals_its_naive_twin() -> None:
    """Solve the normal equations anew at each step instead of updating the inverse."""
    K, d, T, alpha, ridge, r0 = 3, 4, 30, 0.7, 0.5, 1.0
    options = {"alpha": alpha, "lambda": ridge, "r0": r0}
    told = actor("lin-ucb", K=K, d=d, **options)
    rng, g = np.random.default_rng(0), np.random.default_rng(1)
    state, reset = told.initial_state(1), np.array([True])
    A, b = np.tile(ridge * np.eye(d), (K, 1, 1)), np.zeros((K, d))
    last = np.zeros(K + 2)
    for t in range(T):
        x = g.normal(size=d).astype(np.float32).astype(float)
        observation = np.concatenate([x, last])[None].astype(np.float32)
        action, state, _ = told.act(observation, state, reset, rng, "sample")
        inverse = np.linalg.inv(A)
        scores = np.einsum("i,kij,kj->k", x, inverse, b)
        scores += alpha * np.sqrt(np.einsum("i,kij,j->k", x, inverse, x))
        if t > 0:  # all arms tie at the start
            assert scores[action[0]] == pytest.approx(scores.max(), abs=1e-9)
        reward = float(np.float32(g.normal()))
        A[action[0]] += np.outer(x, x)
        b[action[0]] += (reward - r0) * x
        last = [*np.eye(K)[action[0]].tolist(), reward, (t + 1) / T]
        reset = np.array([False])


@pytest.mark.parametrize("K", [2, 5, 7, 20])
@pytest.mark.parametrize("kind", ["rl2", "summary"])
def test_layouts_of_all_bandits_are_told_apart(kind: str, K: int) -> None:
    for name, d in (("GaussianBandit", 0), ("BernoulliBandit", 0), ("SyntheticMovies", min(6, K))):
        env = gymnasium.make(f"palaestra/{name}-v0", K=K, observation=kind)
        layout = Layout.of(env.observation_space, env.action_space, "ucb")
        assert (layout.kind, layout.num_features) == (kind, d), name


@pytest.mark.parametrize("name", PLAIN)
def test_both_observations_tell_a_rule_the_same(name: str) -> None:
    def actions(kind: str) -> np.ndarray:
        env = make_vec("palaestra/GaussianBandit-v0", 16, K=4, T=40, observation=kind)
        told = make(name, env.single_observation_space, env.single_action_space).make_actor()
        return play(env, told, range(16), np.random.default_rng(3), "sample").action

    assert (actions("rl2") == actions("summary")).all()


@pytest.mark.parametrize("name", [*PLAIN, "lin-ucb"])
def test_a_reset_row_forgets_and_the_others_do_not_notice(name: str) -> None:
    d = 2 if name == "lin-ucb" else 0
    told = actor(name, d=d)
    g = np.random.default_rng(0)
    state = told.initial_state(2)
    for t in range(6):
        observation = g.random((2, d + 5)).astype(np.float32)
        observation[:, d : d + 3] = np.eye(3)[[t % 3, t % 2]]
        arguments = observation, state, np.full(2, t == 0)
        state = told.act(*arguments, np.random.default_rng(t), "sample")[1]
    reset = np.array([True, False])
    stale = told.act(observation, state, reset, np.random.default_rng(9), "sample")
    fresh_state = told.initial_state(2)
    fresh = told.act(observation, fresh_state, np.ones(2, bool), np.random.default_rng(9), "sample")
    kept = told.act(observation, state, np.zeros(2, bool), np.random.default_rng(9), "sample")
    assert stale[0][0] == fresh[0][0]
    assert stale[0][1] == kept[0][1]
    for path, array in stale[1].tensors().items():
        assert np.array_equal(array[0], fresh[1].tensors()[path][0]), path
        assert np.array_equal(array[1], kept[1].tensors()[path][1]), path


@pytest.mark.parametrize("name", [*PLAIN, "lin-ucb"])
def test_acting_leaves_the_given_state_as_it_was(name: str) -> None:
    d = 2 if name == "lin-ucb" else 0
    told, rng = actor(name, d=d), np.random.default_rng(0)
    observation = np.ones((2, d + 5), np.float32)
    state = told.act(observation, told.initial_state(2), np.ones(2, bool), rng, "sample")[1]
    before = {path: array.copy() for path, array in state.tensors().items()}
    told.act(observation, state, np.array([True, False]), rng, "sample")
    assert all(np.array_equal(before[path], array) for path, array in state.tensors().items())


@pytest.mark.parametrize("name", ALL)
def test_an_actor_survives_pickling_and_acts_the_same(name: str) -> None:
    env = make_vec("palaestra/BernoulliBandit-v0", 8, K=3)
    told = make(name, env.single_observation_space, env.single_action_space).make_actor()
    copy = pickle.loads(pickle.dumps(told))
    one, other = (play(env, a, range(8), np.random.default_rng(1), "sample") for a in (told, copy))
    assert (one.action == other.action).all()


@pytest.mark.parametrize("name", [*PLAIN, "thompson-beta"])
def test_rules_refuse_the_spaces_of_other_tasks(name: str) -> None:
    box = Box(-1, 1, (5,), np.float32)
    with pytest.raises(UserError, match="Discrete"):
        make(name, box, box)
    with pytest.raises(UserError, match="Box"):
        make(name, Discrete(4), Discrete(3))
    with pytest.raises(UserError, match=r"shape \(5,\) with 9 actions is not"):
        make(name, box, Discrete(9))


def test_lin_ucb_needs_a_context() -> None:
    with pytest.raises(UserError, match="context"):
        actor("lin-ucb")


def test_options_out_of_range_are_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"agent\.bonus"):
        actor("ucb", bonus="none")
    with pytest.raises(UserError, match=r"agent\.epsilon"):
        actor("epsilon-greedy", epsilon=2.0)
    with pytest.raises(UserError, match="reward_low must be below"):
        actor("exp3", reward_low=1.0)


def test_actions_of_a_space_that_starts_elsewhere_are_shifted() -> None:
    observation, _ = spaces(3)
    told = make("ucb", observation, Discrete(3, start=5)).make_actor()
    reset, rng = np.ones(1, bool), np.random.default_rng(0)
    first = told.act(np.zeros((1, 5), np.float32), told.initial_state(1), reset, rng, "sample")[0]
    assert first == 5
