import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import palaestra.metrics  # noqa: F401 - registers the metrics
from palaestra.experience.episodes import EpisodeMetric, Episodes
from palaestra.metrics import decisions
from palaestra.registry import registry


def episodes(
    actions: list[list[int]],
    rewards: list[list[float]],
    means: list[float],
    length: list[int] | None = None,
) -> Episodes:
    """Return episodes of one bandit with the given means."""
    action, mu = np.array(actions), np.array(means)
    return Episodes(
        action,
        np.array(rewards, float),
        np.array(length or [action.shape[1]] * len(action)),
        len(means),
        {
            "expected_reward": mu[action],
            "best_expected_reward": np.full(action.shape, mu.max()),
            "regret": mu.max() - mu[action],
        },
    )


ONE = episodes([[0, 1, 1, 2, 0, 1]], [[1, 0, 0, 1, 1, 1]], [0.5, 0.2, 0.9])


def test_regret_sums_the_gaps_and_realised_regret_the_rewards() -> None:
    assert decisions.regret(ONE) == pytest.approx(0.4 + 0.7 + 0.7 + 0 + 0.4 + 0.7)
    assert decisions.realised_regret(ONE) == pytest.approx(6 * 0.9 - 4)
    assert decisions.regret_curve(ONE)[0, 2] == pytest.approx(1.8)


def test_coverage_grows_with_each_new_arm() -> None:
    assert np.allclose(decisions.coverage_curve(ONE), np.array([[1, 2, 2, 3, 3, 3]]) / 3)
    assert decisions.coverage(ONE) == 1


def test_steps_on_the_best_arm() -> None:
    assert decisions.optimal_fraction(ONE) == pytest.approx(1 / 6)
    assert decisions.best_arm_pulls(ONE) == 1


def test_a_suffix_fails_once_the_best_arm_is_never_pulled_again() -> None:
    assert decisions.suffix_failure(ONE) == 0  # steps 3..5 hold its only pull
    assert decisions.suffix_failure(ONE, start=3) == 0
    assert decisions.suffix_failure(ONE, start=4) == 1


def test_k_min_fraction_is_one_for_even_play_and_zero_with_an_untried_arm() -> None:
    even = episodes([[0, 1, 2, 2, 1, 0]], [[0] * 6], [0, 0, 1])
    assert decisions.k_min_fraction(even) == 1
    assert decisions.k_min_fraction(even, t=2) == 0
    assert decisions.k_min_fraction(ONE) == pytest.approx(3 * 1 / 6)


def test_greedy_steps_follow_the_highest_mean_among_tried_arms() -> None:
    # Means before each step: -; 1 - -; 1 0 -; 1 0 -; 1 0 1; 1 0 1: only step 4 is greedy.
    assert decisions.greedy_fraction(ONE) == pytest.approx(1 / 5)
    assert decisions.greedy_fraction(ONE, all_tried=True) == pytest.approx(1 / 2)
    assert decisions.greedy_fraction(ONE, all_tried=False) == 0
    assert decisions.greedy_steps(ONE, all_tried=True) == 2


def test_ties_for_the_highest_mean_count_as_greedy() -> None:
    tied = episodes([[0, 1, 1, 0]], [[1, 1, 1, 1]], [0.5, 0.5])
    assert decisions.greedy_fraction(tied, all_tried=True) == 1


def test_a_share_of_no_steps_is_not_a_number_and_weighs_nothing() -> None:
    stuck = episodes([[0, 0, 0]], [[1, 1, 1]], [1, 0])
    assert np.isnan(decisions.greedy_fraction(stuck, all_tried=True)).all()
    assert decisions.GREEDY_FRACTION_ALL_TRIED.weights(stuck) == 0


@given(st.integers(0, 2**32 - 1), st.integers(2, 4), st.integers(2, 9))
@settings(max_examples=40, deadline=None)
def test_metrics_equal_their_naive_twins(seed: int, K: int, T: int) -> None:
    g = np.random.default_rng(seed)
    actions, rewards = g.integers(K, size=(3, T)), g.integers(0, 2, size=(3, T))
    length = g.integers(1, T + 1, size=3)
    recorded = episodes(actions.tolist(), rewards.tolist(), g.random(K).tolist(), length.tolist())
    for e in range(3):
        a, r = actions[e, : length[e]], rewards[e, : length[e]]
        counts = np.bincount(a, minlength=K)
        assert decisions.coverage(recorded)[e] == (counts > 0).mean()
        assert decisions.k_min_fraction(recorded)[e] == pytest.approx(K * counts.min() / length[e])
        greedy = [
            a[t] in a[:t]
            and r[:t][a[:t] == a[t]].mean()
            >= max(r[:t][a[:t] == arm].mean() for arm in set(a[:t].tolist()))
            for t in range(1, length[e])
        ]
        if greedy:
            assert decisions.greedy_fraction(recorded)[e] == pytest.approx(np.mean(greedy))
        late = recorded.info["regret"][e, length[e] // 2 : length[e]]
        assert decisions.suffix_failure(recorded)[e] == float(not (late == 0).any())


def test_padding_changes_no_metric() -> None:
    short = episodes([[0, 1, 2]], [[1, 0, 1]], [0.5, 0.2, 0.9])
    padded = episodes([[0, 1, 2, 2, 1]], [[1, 0, 1, 9, 9]], [0.5, 0.2, 0.9], length=[3])
    for entry in registry.entries("metric").values():
        metric = entry.load()
        if isinstance(metric, EpisodeMetric) and metric.applies(short):
            assert np.array_equal(metric(short), metric(padded), equal_nan=True), entry.name
            assert np.array_equal(metric.weights(short), metric.weights(padded)), entry.name


def test_every_registered_episode_metric_has_its_name_a_unit_and_a_meaning() -> None:
    names = {"return", "length", "regret", "realised_regret", "coverage", "optimal_fraction"}
    assert names <= set(registry.entries("metric"))
    for name, entry in registry.entries("metric").items():
        metric = entry.load()
        if isinstance(metric, EpisodeMetric):
            assert metric.name == name
            assert metric.unit
            assert metric.meaning


def test_a_metric_applies_only_where_its_data_was_recorded() -> None:
    bare = Episodes(np.zeros((1, 2)), np.zeros((1, 2)), np.array([2]))
    assert not decisions.REGRET.applies(bare)
    assert not decisions.COVERAGE.applies(bare)
    assert decisions.COVERAGE.applies(ONE)
