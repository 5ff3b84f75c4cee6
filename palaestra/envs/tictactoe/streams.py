"""The random stream of a game: every draw is a function of (seed, index, word) alone.

A batch of games therefore draws exactly what each game alone would draw, and a stored game goes on
exactly from its board. The words of a game's stream:
"""

import numpy as np

from palaestra.envs.noise import bits, instance_keys, uniform

__all__ = ["FIRST", "MEETS", "OPENING", "REPLY", "SUBSTITUTE", "below", "draw", "game_keys", "unit"]

FIRST = 0
"""Who opens."""
MEETS = 1
"""Which of several opponents plays."""
OPENING = 16
"""A random opening move; the stones on the board are added."""
REPLY = 32
"""A move of the opponent; the stones on the board are added."""
SUBSTITUTE = 48
"""A move in place of an illegal one; the stones on the board are added."""

game_keys = instance_keys
unit = uniform


def draw(keys: np.ndarray, word: int | np.ndarray) -> np.ndarray:
    """Return number `word` of each key's stream; it may serve as a key itself, uint64 `[M]`."""
    return bits(keys, np.asarray(word).astype(np.uint64))


def below(numbers: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Map 64-bit numbers to uniform integers in [0, bound), uint64 bounds, int64 `[M]`."""
    return ((numbers >> np.uint64(32)) * bounds >> np.uint64(32)).astype(np.int64)
