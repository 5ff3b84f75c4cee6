"""Sequences of multi-query associative recall (MQAR; Arora et al. 2023, arXiv 2312.04927).

    k_1 v_1 k_2 v_2 ... k_N v_N   . . k_7 . k_2 . . . . k_5 . . .        . is the blank

First come N pairs of a key and its value, then every key once more, at a place of its own among
blanks. At a query the target is the value of its key; all other places have no target. The places
are drawn from a power law of the distance to the pairs, so that most queries come early.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from palaestra.policies.language import IGNORED

BLANK = 0

POWER = 0.01
"""The density of a query d places after the pairs is proportional to d^(POWER - 1)."""


class Vocabulary(NamedTuple):
    """The blank, then the keys, then the values."""

    keys: int
    values: int

    @property
    def size(self) -> int:
        """Return the number of tokens."""
        return 1 + self.keys + self.values


class Recall(NamedTuple):
    """A batch of sequences."""

    tokens: Tensor
    """int64 `[B, T]`."""
    targets: Tensor
    """int64 `[B, T]`: the value at a query, IGNORED elsewhere."""


def draw(
    vocabulary: Vocabulary, batch: int, length: int, pairs: int, generator: torch.Generator
) -> Recall:
    """Draw sequences.

    Args:
      vocabulary: how many keys and values there are.
      batch: number of sequences.
      length: T, even, at least 4 * pairs.
      pairs: N, at most the number of keys; the keys of a sequence differ, values may be equal.
      generator: the source of chance.
    """
    if length % 2 or length < 4 * pairs or pairs > vocabulary.keys:
        raise ValueError(f"{pairs} pairs of {vocabulary.keys} keys do not fit into {length} places")
    order = torch.rand(batch, vocabulary.keys, generator=generator).argsort(1)
    keys = 1 + order[:, :pairs]
    values = torch.randint(vocabulary.values, keys.shape, generator=generator)
    values += 1 + vocabulary.keys
    tokens = torch.full((batch, length), BLANK)
    tokens[:, : 2 * pairs] = torch.stack([keys, values], 2).flatten(1)

    places = length // 2 - pairs  # every second one, as in the paper's code
    density = torch.arange(1.0, places + 1) ** (POWER - 1)
    chosen = torch.multinomial(density.expand(batch, -1), pairs, generator=generator)
    queries = 2 * pairs + 2 * chosen
    targets = torch.full((batch, length), IGNORED)
    return Recall(tokens.scatter(1, queries, keys), targets.scatter(1, queries, values))
