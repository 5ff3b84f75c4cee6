"""Running statistics: equal to NumPy's of all samples, however they come."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from palaestra.envs.wrappers.statistics import RunningStatistics, merge_statistics

samples = arrays.arrays(
    np.float64, st.tuples(st.integers(1, 60), st.integers(1, 3)), elements=st.floats(-1e4, 1e4)
)


def assert_close(x: RunningStatistics, data: np.ndarray) -> None:
    # Rounding of sums of squares, with 60 samples and values up to 1e4.
    scale = np.finfo(float).eps * 60 * max(1.0, np.abs(data).max())
    np.testing.assert_allclose(x.mean, data.mean(axis=0), atol=scale, rtol=0)
    np.testing.assert_allclose(
        x.var, data.var(axis=0), atol=scale * max(1.0, np.abs(data).max()), rtol=0
    )
    assert x.count == len(data)


@settings(deadline=None)
@given(data=samples, cuts=st.lists(st.integers(0, 60), max_size=6))
def test_batches_of_any_sizes_give_mean_and_variance_of_all(
    data: np.ndarray, cuts: list[int]
) -> None:
    seen = RunningStatistics.empty(data.shape[1:])
    for batch in np.split(data, sorted(min(c, len(data)) for c in cuts)):
        seen = seen.update(batch)
    assert_close(seen, data)


@settings(deadline=None)
@given(data=samples, cut=st.integers(0, 60), turned=st.booleans())
def test_two_streams_merge_to_one_in_either_order(data: np.ndarray, cut: int, turned: bool) -> None:
    empty = RunningStatistics.empty(data.shape[1:])
    parts = [empty.update(data[:cut]), empty.update(data[cut:])]
    one, other = parts[::-1] if turned else parts
    assert_close(one.merge(other), data)


def test_nothing_merged_with_nothing_is_nothing() -> None:
    nothing = RunningStatistics.empty((2,))
    assert nothing.merge(nothing).count == 0
    assert nothing.update(np.empty((0, 2))) is nothing


@pytest.mark.parametrize("batches", [1, 3])
def test_the_numbers_are_those_of_stable_baselines3(batches: int) -> None:
    from stable_baselines3.common.running_mean_std import RunningMeanStd

    rng = np.random.default_rng(0)
    theirs, ours = RunningMeanStd(shape=(2,)), RunningStatistics.prior((2,))
    for _ in range(batches):
        x = rng.normal(3.0, 5.0, (7, 2))
        theirs.update(x)
        ours = ours.update(x)
    np.testing.assert_allclose(ours.mean, theirs.mean, rtol=1e-12)
    np.testing.assert_allclose(ours.var, theirs.var, rtol=1e-12)


def test_plain_values_give_the_same_statistics_back() -> None:
    seen = RunningStatistics.empty((2,)).update(np.arange(6.0).reshape(3, 2))
    back = RunningStatistics.from_plain(seen.plain())
    assert (back.mean.tobytes(), back.var.tobytes(), back.count) == (
        seen.mean.tobytes(),
        seen.var.tobytes(),
        3,
    )


def test_workers_statistics_merge_by_wrapper_and_leaf() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(12, 2))
    parts = [RunningStatistics.empty((2,)).update(part).plain() for part in np.split(x, 3)]
    merged = merge_statistics([{"normalise-observation": {"": part}} for part in parts])
    assert_close(RunningStatistics.from_plain(merged["normalise-observation"][""]), x)
