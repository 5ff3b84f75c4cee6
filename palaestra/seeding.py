"""The seeding tree: one user seed, one independent stream for each named use.

Streams are keyed by role and index, never by the order of calls, so adding a consumer or changing
the number of workers leaves every other stream as it was. Nothing draws from a global generator.
"""

from enum import IntEnum

import numpy as np


class Role(IntEnum):
    """What a stream is for; the numbers are part of every stored run and never change."""

    ENV = 0
    ACTING = 1
    INIT = 2
    REPLAY = 3
    NOISE = 4
    EVAL_ENV = 5
    EVAL_ACTING = 6
    STATISTICS = 7
    MACROS = 8
    DATA_ORDER = 9
    LLM_SAMPLING = 10
    GLOBAL = 11


def sequence(seed: int, role: Role, *indices: int) -> np.random.SeedSequence:
    """Return the seed sequence of (seed, role, indices)."""
    return np.random.SeedSequence(entropy=seed, spawn_key=(int(role), *indices))


def generator(seed: int, role: Role, *indices: int) -> np.random.Generator:
    """Return a fresh NumPy generator for (seed, role, indices)."""
    return np.random.default_rng(sequence(seed, role, *indices))


def integer(seed: int, role: Role, *indices: int) -> int:
    """Return a 31-bit seed, as Gymnasium and ALE take it."""
    return int(sequence(seed, role, *indices).generate_state(1)[0]) & 0x7FFFFFFF


def integers(seed: int, role: Role, indices: range) -> list[int]:
    """Return one 31-bit seed for each (global) environment index."""
    return [integer(seed, role, index) for index in indices]
