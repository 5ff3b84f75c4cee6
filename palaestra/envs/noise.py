"""Counter-based random numbers: a pure function from (key, counter) to 64 bits, in NumPy.

SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014)
walks its state in equal strides and scrambles each state for output, so that its n-th output is
computed directly from n. Nothing is stored and nothing is drawn in order: the n-th pull of an arm
pays the same whatever was pulled before, and a thousand environments are one array expression.
"""

import numpy as np

from palaestra.errors import UserError

GAMMA = np.uint64(0x9E3779B97F4A7C15)
"""Stride of the state, the golden ratio in 64 bits."""

NORMAL_BOUND = 6.8
"""No normal number is larger: the smallest uniform is 2^-33, and sqrt(66 ln 2) = 6.764."""

_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)
_SHIFT_11, _SHIFT_27, _SHIFT_30, _SHIFT_31, _SHIFT_32 = np.array([11, 27, 30, 31, 32], np.uint64)
_LOW_WORD = np.uint64(0xFFFFFFFF)


def bits(key: np.ndarray, counter: np.ndarray | np.uint64) -> np.ndarray:
    """Return output number `counter` of the generator with state `key`, as uint64.

    Args:
      key: uint64 array of at least one dimension.
      counter: uint64, broadcast against `key`; 0 is the first output.
    """
    # Arrays wrap around in silence where NumPy's scalars warn.
    z: np.ndarray = key + (np.atleast_1d(counter) + np.uint64(1)) * GAMMA
    z ^= z >> _SHIFT_30
    z *= _MULTIPLIER_1
    z ^= z >> _SHIFT_27
    z *= _MULTIPLIER_2
    z ^= z >> _SHIFT_31
    return z


def instance_keys(seed: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return the key of each instance (seed, index), uint64 of the shape of `seed`."""
    root = bits(seed.astype(np.uint64), np.uint64(0))
    return bits(root, index.astype(np.uint64))


def uniform(x: np.ndarray) -> np.ndarray:
    """Return 64 bits as float64 in [0, 1), on a grid of 2^-53."""
    result: np.ndarray = (x >> _SHIFT_11) * 2.0**-53
    return result


def integer(x: np.ndarray, n: int) -> np.ndarray:
    """Return 64 bits as int64 in [0, n), for n up to 2^32; its bias is below n / 2^32."""
    result: np.ndarray = (((x >> _SHIFT_32) * np.uint64(n)) >> _SHIFT_32).astype(np.int64)
    return result


def standard_normal(x: np.ndarray) -> np.ndarray:
    """Return 64 bits as N(0, 1), by Box and Muller (1958): a word each for radius and angle."""
    radius: np.ndarray = (x >> _SHIFT_32) * 2.0**-32
    radius += 2.0**-33
    np.log(radius, out=radius)
    radius *= -2.0
    np.sqrt(radius, out=radius)
    angle = (x & _LOW_WORD) * (2.0 * np.pi * 2.0**-32)
    radius *= np.cos(angle, out=angle)
    return radius


def check_seed(seed: int) -> int:
    """Return `seed` if it is a seed of a counter-based environment.

    Raises:
      UserError: it is not an integer in [0, 2^63).
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        raise UserError(f"seed: {seed!r} is not accepted: an integer from 0 to 2**63 - 1 is.")
    return int(seed)
