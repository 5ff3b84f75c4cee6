import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palaestra.metrics import statistics
from palaestra.metrics.statistics import (
    bootstrap_interval,
    bootstrap_intervals,
    improvement_interval,
    iqm,
    mean,
    median,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    wilson,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_iqm_of_one_to_eight_and_of_one_to_five() -> None:
    assert iqm(np.arange(1.0, 9)[:, None]) == 4.5
    assert iqm(np.arange(1.0, 6)[:, None]) == 3


def test_iqm_pools_runs_and_tasks() -> None:
    scores = rng().normal(size=(7, 5))
    pooled = np.sort(scores.ravel())
    assert iqm(scores) == pytest.approx(pooled[8:-8].mean(), abs=1e-15)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=40))
def test_iqm_drops_a_quarter_at_each_end_as_the_naive_twin_does(values: list[float]) -> None:
    values = sorted(values)
    kept = values[len(values) // 4 : len(values) - len(values) // 4]
    assert iqm([np.array(values)]) == pytest.approx(sum(kept) / len(kept), abs=1e-12)


def test_mean_median_and_gap_are_over_task_means() -> None:
    scores = np.array([[0.0, 1.0, 5.0], [0.5, 1.0, 7.0]])  # task means 0.25, 1, 6
    assert mean(scores) == pytest.approx((0.25 + 1 + 6) / 3)
    assert median(scores) == 1
    assert optimality_gap(scores) == pytest.approx(0.75 / 3)


def test_tasks_with_different_numbers_of_runs_weigh_the_same_in_the_mean() -> None:
    assert mean([np.array([0.0]), np.ones(9)]) == 0.5


def test_a_constant_matrix_has_an_interval_of_no_width() -> None:
    interval = bootstrap_interval(np.full((5, 4), 0.7), rng(), repetitions=100)
    assert interval.low == interval.high == pytest.approx(0.7)


def test_the_same_generator_gives_the_same_interval() -> None:
    scores = rng().normal(size=(5, 6))
    assert bootstrap_interval(scores, rng(1)) == bootstrap_interval(scores, rng(1))
    assert bootstrap_interval(scores, rng(1)) != bootstrap_interval(scores, rng(2))


@given(st.permutations(range(6)))
@settings(max_examples=20)
def test_the_order_of_the_runs_changes_nothing(order: list[int]) -> None:
    scores = rng().normal(size=(6, 3))
    expected = bootstrap_interval(scores, rng(1), repetitions=200)
    assert bootstrap_interval(scores[order], rng(1), repetitions=200) == expected


def test_chunks_draw_as_one_piece_does_in_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = rng().normal(size=(5, 6))
    whole = bootstrap_interval(scores, rng(1), repetitions=20_000)
    monkeypatch.setattr(statistics, "_CHUNK_NUMBERS", 1000)
    pieces = bootstrap_interval(scores, rng(1), repetitions=20_000)
    assert pieces.repetitions == whole.repetitions == 20_000
    # Standard error of a 2.5 % quantile, sqrt(p q / n) / density, of a normal law.
    width = (whole.high - whole.low) / (2 * 1.96)
    error = np.sqrt(0.025 * 0.975 / 20_000) / 0.0584 * width
    assert abs(pieces.low - whole.low) < 6 * error
    assert abs(pieces.high - whole.high) < 6 * error


def test_the_interval_of_one_tasks_mean_is_that_of_the_bootstrap_of_a_mean() -> None:
    scores = np.array([[0.0], [1.0]])  # means of two draws: 0, 1/2, 1/2, 1
    interval = bootstrap_interval(scores, rng(), mean, repetitions=10_000)
    assert (interval.low, interval.high) == (0, 1)
    inner = bootstrap_interval(scores, rng(), mean, repetitions=10_000, level=0.3)
    assert (inner.low, inner.high) == (0.5, 0.5)


def test_runs_are_resampled_within_their_task() -> None:
    """Scores that differ between tasks but not within leave nothing to resample."""
    scores = np.tile([0.0, 1.0, 5.0], (4, 1))
    for interval in bootstrap_intervals(scores, rng(), [iqm, mean, median], repetitions=200):
        assert interval.low == interval.high


def test_tasks_of_unequal_runs_keep_their_own_numbers() -> None:
    interval = bootstrap_interval([np.zeros(3), np.ones(9)], rng(), iqm, repetitions=200)
    assert interval.low == interval.high == iqm([np.zeros(3), np.ones(9)])


def test_several_statistics_share_their_draws() -> None:
    scores = rng().normal(size=(5, 4))
    both = bootstrap_intervals(scores, rng(3), [mean, iqm], repetitions=500)
    assert both[0] == bootstrap_interval(scores, rng(3), mean, repetitions=500)
    assert both[1] == bootstrap_interval(scores, rng(3), iqm, repetitions=500)


def test_probability_of_improvement_counts_pairs_and_half_of_the_ties() -> None:
    x, y = [np.array([1.0, 2, 3])], [np.array([2.0, 2, 0])]
    wins, ties = 1 + 1 + 3, 2
    assert probability_of_improvement(x, y) == pytest.approx((wins + ties / 2) / 9)


def test_probabilities_of_improvement_in_both_directions_sum_to_one() -> None:
    x, y = rng(1).integers(0, 4, (6, 3)), rng(2).integers(0, 4, (4, 3))
    forward, backward = probability_of_improvement(x, y), probability_of_improvement(y, x)
    assert forward + backward == pytest.approx(1, abs=1e-15)


def test_an_agent_that_always_wins_improves_with_certainty() -> None:
    x, y = rng(1).random((5, 3)) + 2, rng(2).random((4, 3))
    assert probability_of_improvement(x, y) == 1
    interval = improvement_interval(x, y, rng(), repetitions=100)
    assert (interval.low, interval.high) == (1, 1)


def test_a_profile_is_the_share_of_scores_above_each_threshold() -> None:
    scores = np.array([[0.1, 0.4], [0.2, 0.9]])
    profile = performance_profile(scores, np.array([0.0, 0.2, 0.5, 1.0]))
    assert profile.tolist() == [1, 0.5, 0.25, 0]


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0, 0.278), (8, 10, 0.490, 0.943), (100, 100, 0.963, 1)],
)
def test_wilson_intervals(successes: int, trials: int, low: float, high: float) -> None:
    interval = wilson(successes, trials)
    assert (round(interval.low, 3), round(interval.high, 3)) == (low, high)


@pytest.mark.slow
@pytest.mark.parametrize(("runs", "coverage"), [(3, 0.88), (5, 0.93), (10, 0.95)])
def test_coverage_of_the_nominal_95_percent_interval(runs: int, coverage: float) -> None:
    """Normal scores on 10 tasks, whose IQM is 0 by symmetry."""
    trials, g = 2_000, rng(runs)
    covered = 0
    for _ in range(trials):
        low, high, *_ = bootstrap_interval(g.normal(size=(runs, 10)), g, repetitions=1_000)
        covered += low <= 0 <= high
    # The stated coverages come from 400 trials and are rounded to 0.01.
    error = np.sqrt(coverage * (1 - coverage) * (1 / trials + 1 / 400))
    assert abs(covered / trials - coverage) < 3 * error + 0.005
