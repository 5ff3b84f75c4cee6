"""Streams depend on the seed, the role and the index, and on nothing else."""

import numpy as np

from palaestra.seeding import Role, generator, integer, integers


def test_the_same_key_gives_the_same_stream() -> None:
    one, other = generator(3, Role.ACTING, 1), generator(3, Role.ACTING, 1)
    np.testing.assert_array_equal(one.random(100), other.random(100))


def test_keys_that_differ_anywhere_give_different_streams() -> None:
    keys = [(0, Role.ENV, 0), (1, Role.ENV, 0), (0, Role.INIT, 0), (0, Role.ENV, 1), (0, Role.ENV)]
    firsts = {generator(*key).random() for key in keys}
    assert len(firsts) == len(keys)


def test_seeds_of_a_range_are_those_of_its_indices() -> None:
    assert integers(5, Role.ENV, range(3, 6)) == [integer(5, Role.ENV, i) for i in (3, 4, 5)]
    assert all(0 <= seed < 2**31 for seed in integers(0, Role.EVAL_ENV, range(100)))
