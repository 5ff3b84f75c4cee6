"""Advantages against closed forms."""

import numpy as np
import pytest

from palaestra.agents.returns import fragment_advantage, generalized_advantage
from palaestra.experience.fragment import Fragment


def fragment(
    reward: np.ndarray, value: np.ndarray, last_value: float, **fields: object
) -> Fragment:
    shape = reward.shape
    values: dict[str, object] = {
        "observation": np.zeros((*shape, 1), np.float32),
        "action": np.zeros(shape, np.int64),
        "reward": reward,
        "terminated": np.zeros(shape, bool),
        "truncated": np.zeros(shape, bool),
        "reset": np.zeros(shape, bool),
        "duration": np.ones(shape, np.int32),
        "length": np.full(shape[1], shape[0]),
        "state": None,
        "extras": {"value": value},
        "next_extras": {"value": np.full(shape[1], last_value)},
    }
    return Fragment(**(values | fields))  # type: ignore[arg-type]


def test_a_single_reward_at_the_end_gives_a_geometric_sum() -> None:
    T, gamma, lam = 10, 0.9, 0.8
    reward, value = np.zeros((T, 1)), np.zeros((T, 1))
    reward[-1] = 1.0
    ended = np.zeros((T, 1), bool)
    ended[-1] = True
    advantage = fragment_advantage(fragment(reward, value, 5.0, terminated=ended), gamma, lam)
    expected = (gamma * lam) ** np.arange(T - 1, -1, -1)
    np.testing.assert_allclose(advantage[:, 0], expected, rtol=1e-12)


def test_an_endless_reward_of_one_with_the_true_value_has_no_advantage() -> None:
    gamma = 0.95
    value = np.full((20, 2), 1 / (1 - gamma))
    advantage = fragment_advantage(fragment(np.ones((20, 2)), value, 1 / (1 - gamma)), gamma, 0.9)
    np.testing.assert_allclose(advantage, 0, atol=1e-6)


def test_truncation_bootstraps_from_the_final_observation_and_termination_from_nothing() -> None:
    gamma, lam = 0.9, 0.7
    reward, value = np.ones((3, 2)), np.full((3, 2), 2.0)
    terminated, truncated = np.zeros((3, 2), bool), np.zeros((3, 2), bool)
    terminated[1, 0] = truncated[1, 1] = True
    advantage = fragment_advantage(
        fragment(
            reward,
            value,
            4.0,
            terminated=terminated,
            truncated=truncated,
            final_index=(np.array([1, 1]), np.array([0, 1])),
            final_extras={"value": np.array([50.0, 10.0])},
        ),
        gamma,
        lam,
    )
    last = 1 + gamma * 4 - 2
    np.testing.assert_allclose(advantage[2], last)
    np.testing.assert_allclose(advantage[1], [1 - 2, 1 + gamma * 10 - 2])
    first = 1 + gamma * 2 - 2 + gamma * lam * advantage[1]
    np.testing.assert_allclose(advantage[0], first)


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_the_recursion_equals_the_sum_over_all_later_errors(lam: float) -> None:
    rng = np.random.default_rng(0)
    T, N = 12, 5
    reward, value, next_value = rng.normal(size=(3, T, N))
    cut = rng.random((T, N)) < 0.2
    discount = rng.uniform(0.5, 1, (T, N))
    delta = reward + discount * next_value - value
    expected = np.zeros((T, N))
    for n in range(N):
        for t in range(T):
            weight = 1.0
            for k in range(t, T):
                expected[t, n] += weight * delta[k, n]
                weight *= discount[k, n] * lam
                if cut[k, n]:
                    break
    found = generalized_advantage(reward, value, next_value, discount, cut, lam)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_a_longer_action_is_discounted_by_its_duration() -> None:
    reward, value = np.zeros((1, 1)), np.zeros((1, 1))
    long = np.full((1, 1), 4, np.int32)
    advantage = fragment_advantage(fragment(reward, value, 1.0, duration=long), 0.9, 0.95)
    assert advantage[0, 0] == pytest.approx(0.9**4)
