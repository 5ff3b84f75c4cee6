import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from palaestra import agents
from palaestra.agents.q_learning import StateIndex, apply_in_order
from palaestra.envs.tictactoe import exact
from palaestra.envs.tictactoe.rules import LEGAL
from palaestra.envs.tictactoe.vector import TicTacToeVectorEnv
from palaestra.envs.wrappers import VectorActionMask
from palaestra.errors import UserError
from palaestra.experience.fragment import Fragment
from palaestra.experience.state import State

LINE, PAIR = spaces.Discrete(6), spaces.Discrete(2)


def learner(gamma: float = 0.5, rate: float = 0.25, observations: spaces.Space = LINE):
    agent = agents.make("q-learning", observations, PAIR, learning_rate=rate, gamma=gamma)
    return agent.make_learner()


def fragment(states, actions, rewards, last, **changes) -> Fragment:
    """One row of transitions, [T, 1], that nothing ends unless `changes` say so."""
    column = np.array(states)[:, None]
    no = np.zeros(column.shape, bool)
    fields = {
        "observation": column,
        "action": np.array(actions)[:, None],
        "reward": np.array(rewards, np.float32)[:, None],
        "terminated": no,
        "truncated": no,
        "reset": no,
        "duration": np.ones(column.shape, np.int32),
        "length": np.array([len(column)]),
        "state": State(),
        "next_observation": np.array([last]),
    }
    return Fragment(**(fields | changes))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(-5, 5)), max_size=30),
    st.floats(0.01, 1),
)
def test_updates_in_order_equal_the_naive_loop(pairs: list, rate: float) -> None:
    entries = np.array([entry for entry, _ in pairs], np.int64)
    targets = np.array([target for _, target in pairs])
    table, naive = np.linspace(-1, 2, 4), np.linspace(-1, 2, 4)
    apply_in_order(table, entries, targets, rate)
    for entry, target in pairs:
        naive[entry] += rate * (target - naive[entry])
    # At most 30 roundings of numbers up to 5.
    np.testing.assert_allclose(table, naive, atol=30 * 5 * np.finfo(float).eps * 4)


def test_a_reward_reaches_the_first_step_of_its_fragment() -> None:
    q = learner(gamma=0.5, rate=1.0)
    terminated = np.array([[False], [False], [True]])
    q.update([fragment([0, 1, 2], [1, 0, 1], [0, 0, 8], 5, terminated=terminated)])
    assert q.q[[0, 1, 2], [1, 0, 1]].tolist() == [2, 4, 8]
    assert np.count_nonzero(q.q) == 3


def test_the_last_step_bootstraps_from_the_last_observation() -> None:
    q = learner()
    q.q[4] = [3, 7]
    q.update([fragment([0], [0], [1], 4)])
    assert q.q[0, 0] == pytest.approx(0.25 * (1 + 0.5 * 7))


def test_durations_discount_by_environment_steps() -> None:
    q = learner()
    q.q[4] = [3, 8]
    q.update([fragment([0], [0], [1], 4, duration=np.array([[3]], np.int32))])
    assert q.q[0, 0] == pytest.approx(0.25 * (1 + 0.5**3 * 8))


def test_a_truncated_step_bootstraps_from_the_true_final_observation() -> None:
    q = learner()
    q.q[3], q.q[5] = [8, 0], [100, 100]
    cut = fragment(
        [0, 5],
        [0, 0],
        [1, 0],
        5,
        truncated=np.array([[True], [False]]),
        length=np.array([1]),
        final_index=(np.array([0]), np.array([0])),
        final_observation=np.array([3]),
    )
    q.update([cut])
    assert q.q[0, 0] == pytest.approx(0.25 * (1 + 0.5 * 8))
    assert q.q[5].tolist() == [100, 100]  # padding: nothing to learn


def test_the_next_value_counts_legal_actions_alone() -> None:
    space = spaces.Dict({"observation": LINE, "action_mask": spaces.MultiBinary(2)})
    q = learner(observations=space)
    q.q[4] = [3, 7]
    masked = fragment([0], [0], [1], 4)
    masked.observation = {
        "observation": np.array([[0]]),
        "action_mask": np.ones((1, 1, 2), np.int8),
    }
    masked.next_observation = {"observation": np.array([4]), "action_mask": np.array([[1, 0]])}
    q.update([masked])
    assert q.q[0, 0] == pytest.approx(0.25 * (1 + 0.5 * 3))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(7, start=3),
        spaces.MultiDiscrete([3, 2, 4]),
        spaces.MultiDiscrete([2, 3], start=[-1, 5]),
    ],
)
def test_states_are_numbered_without_gaps_or_collisions(space: spaces.Space) -> None:
    index = StateIndex(space, 2)
    if isinstance(space, spaces.Discrete):
        observations = np.arange(space.start, space.start + space.n)
    else:
        axes = [np.arange(s, s + n) for s, n in zip(space.start, space.nvec, strict=True)]
        observations = np.stack(np.meshgrid(*axes), -1).reshape(-1, len(axes))
    assert sorted(index(observations)) == list(range(index.size))
    assert index.legal(observations).shape == (index.size, 2)


def test_a_state_dict_goes_on_exactly() -> None:
    one, two = learner(), learner()
    step = fragment([0, 1], [1, 1], [1, 2], 0)
    one.update([step])
    two.load_state_dict(one.state_dict())
    one.update([step])
    two.update([step])
    assert (one.q == two.q).all()
    assert one.weights()["q"] is not one.q


def test_acting_is_epsilon_greedy_over_legal_actions() -> None:
    space = spaces.Dict({"observation": LINE, "action_mask": spaces.MultiBinary(4)})
    agent = agents.make("q-learning", space, spaces.Discrete(4, start=2), epsilon=0.3)
    actor = agent.make_actor()
    q = np.zeros((6, 4))
    q[:, :] = [9, 1, 1, 0]
    actor.load_weights({"q": q})
    N = 30_000
    mask = np.tile(np.array([0, 1, 1, 1], np.int8), (N, 1))
    observation = {"observation": np.zeros(N, np.int64), "action_mask": mask}
    for mode, shares in (("greedy", [0, 0.5, 0.5, 0]), ("sample", [0, 0.45, 0.45, 0.1])):
        rng = np.random.default_rng(0)
        action, _, _ = actor.act(observation, State(), np.zeros(N, bool), rng, mode)
        found = np.bincount(action - 2, minlength=4) / N
        expected = np.array(shares)
        assert (np.abs(found - expected) <= 4 * np.sqrt(expected * (1 - expected) / N)).all()


@pytest.mark.parametrize(
    ("observation_space", "action_space", "message"),
    [
        (spaces.Box(0, 1, (3,)), PAIR, "observation space"),
        (LINE, spaces.Box(0, 1, (3,)), "action space"),
        (spaces.MultiDiscrete([10] * 30), PAIR, "entries"),
    ],
)
def test_other_spaces_are_refused(
    observation_space: spaces.Space, action_space: spaces.Space, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        agents.make("q-learning", observation_space, action_space)


@pytest.mark.parametrize("masked", [True, False])
def test_it_learns_to_beat_uniform_tic_tac_toe(masked: bool) -> None:
    envs: gymnasium.vector.VectorEnv = TicTacToeVectorEnv(64)
    envs = VectorActionMask(envs) if masked else envs
    agent = agents.make(
        "q-learning",
        envs.single_observation_space,
        envs.single_action_space,
        learning_rate=0.3,
        gamma=1.0,
        epsilon=0.2,
    )
    q = trained(agent, envs, updates=100)
    greedy = np.where(LEGAL, q, -np.inf)
    policy = exact.uniform_over(LEGAL & (greedy == greedy.max(axis=1, keepdims=True)))
    win, _, loss = exact.outcomes(policy, exact.uniform_over(LEGAL))[0]
    # Uniform play earns .297 and the best response .995.
    assert win - loss > 0.9


def trained(agent: agents.Agent, envs: gymnasium.vector.VectorEnv, updates: int) -> np.ndarray:
    """Return the table after `updates` fragments of 20 steps; no game is ever truncated."""
    actor, learner = agent.make_actor(), agent.make_learner()
    rng, N = np.random.default_rng(0), envs.num_envs
    observation, _ = envs.reset(seed=0)
    for _ in range(updates):
        rows = []
        for _ in range(20):
            action, _, _ = actor.act(observation, State(), np.zeros(N, bool), rng, "sample")
            after, reward, terminated, truncated, _ = envs.step(action)
            rows.append((observation, action, reward, terminated, truncated))
            observation = after
        seen, action, reward, terminated, truncated = zip(*rows, strict=True)
        if isinstance(observation, dict):
            stacked = {key: np.stack([o[key] for o in seen]) for key in observation}
        else:
            stacked = np.stack(seen)
        ones = np.ones((20, N), bool)
        learner.update(
            [
                Fragment(
                    stacked,
                    np.stack(action),
                    np.stack(reward),
                    np.stack(terminated),
                    np.stack(truncated),
                    ~ones,
                    ones.astype(np.int32),
                    np.full(N, 20),
                    State(),
                    next_observation=observation,
                )
            ]
        )
        actor.load_weights(learner.weights())
    return learner.q
