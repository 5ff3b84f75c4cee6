import math

import numpy as np
import pytest

from palaestra.envs import noise
from palaestra.errors import UserError

N = 200_000


def keys(n: int = N) -> np.ndarray:
    return noise.instance_keys(np.arange(n), np.zeros(n, np.int64))


def test_outputs_are_those_of_sequential_splitmix64() -> None:
    # The published first outputs of SplitMix64 for the state 1234567.
    expected = np.array([6457827717110365317, 3203168211198807973, 9817491932198370423], np.uint64)
    out = noise.bits(np.array([1234567], np.uint64), np.arange(3, dtype=np.uint64))
    assert (out == expected).all()


def test_an_output_depends_on_its_key_and_counter_alone() -> None:
    key, counter = keys(7)[:, None], np.arange(5, dtype=np.uint64)
    block = noise.bits(key, counter)
    for n in range(7):
        for i in range(5):
            assert noise.bits(key[n], counter[i])[0] == block[n, i]


def test_normal_numbers_follow_the_normal_distribution() -> None:
    x = np.sort(noise.standard_normal(noise.bits(keys(), np.uint64(0))))
    cdf = np.array([0.5 * math.erfc(-z / math.sqrt(2)) for z in x])
    distance = np.abs(cdf - (np.arange(N) + 0.5) / N).max()
    assert distance < 1.95 / math.sqrt(N)  # Kolmogorov and Smirnov, p = 0.001


def test_uniform_numbers_have_the_moments_of_the_uniform_distribution() -> None:
    u = noise.uniform(noise.bits(keys(), np.uint64(0)))
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 1 / 2) < 4 * math.sqrt(1 / 12 / N)
    assert abs((u**2).mean() - 1 / 3) < 4 * math.sqrt(4 / 45 / N)


def test_integers_are_equally_frequent() -> None:
    counts = np.bincount(noise.integer(noise.bits(keys(), np.uint64(0)), 7), minlength=7)
    chi_squared = ((counts - N / 7) ** 2 / (N / 7)).sum()
    assert counts.size == 7
    assert chi_squared < 22.5  # 6 degrees of freedom, p = 0.001


@pytest.mark.parametrize("neighbour", ["seed", "index", "counter"])
def test_neighbouring_streams_are_uncorrelated(neighbour: str) -> None:
    zero, i = np.zeros(N, np.int64), np.arange(N)
    one = noise.standard_normal(noise.bits(noise.instance_keys(i, zero), np.uint64(0)))
    other_keys = noise.instance_keys(i + (neighbour == "seed"), zero + (neighbour == "index"))
    counter = np.uint64(neighbour == "counter")
    other = noise.standard_normal(noise.bits(other_keys, counter))
    assert abs(np.mean(one * other)) < 4 / math.sqrt(N)


def test_the_most_extreme_bits_stay_within_the_bound() -> None:
    extremes = np.array([0, 2**32 - 1, 2**31, 2**64 - 1], np.uint64)
    assert np.abs(noise.standard_normal(extremes)).max() <= noise.NORMAL_BOUND


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, True, "1"])
def test_what_is_no_seed_is_refused(seed: object) -> None:
    with pytest.raises(UserError, match="seed"):
        noise.check_seed(seed)  # type: ignore[arg-type]
