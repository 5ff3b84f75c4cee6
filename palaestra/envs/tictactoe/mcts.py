"""Monte-Carlo tree search (UCT; Kocsis and Szepesvári, 2006) on a batch of boards.

All games run their i-th simulation together. A random playout is one draw from the exact outcome
distribution of uniform play, which is the same distribution at a fraction of the work.
"""

import numpy as np

from palaestra.envs.noise import uniform
from palaestra.envs.tictactoe.exact import uniform_outcomes
from palaestra.envs.tictactoe.rules import (
    LEGAL_BITS,
    OVER,
    POWERS,
    SQUARES,
    SWAP,
    draw,
    pack,
    pick,
)

_CHUNK = 256
"""Games searched together; it bounds the memory of the trees."""


def search(codes: np.ndarray, keys: np.ndarray, n: int, c: float) -> np.ndarray:
    """Return how often each root move was visited by n simulations, int64 `[M, 9]`.

    Args:
      codes: int64 `[M]`, boards seen by the player to move, none of them over.
      keys: uint64 `[M]`, the stream key of each search.
      n: simulations.
      c: exploration constant; values lie in [-1, 1].
    """
    chunks = [slice(start, start + _CHUNK) for start in range(0, len(codes), _CHUNK)]
    return np.concatenate([_Trees(codes[s], keys[s], n, c).run() for s in chunks])


def most_visited(visits: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return the most visited squares, ties by one 64-bit random number each, int64 `[M]`."""
    return pick(pack(visits == visits.max(axis=1, keepdims=True)), numbers)


class _Trees:
    """One tree for each board; simulation i adds node i + 1 unless it ends in a finished game.

    Edge (row, node, square) has the flat index `(row * (n + 1) + node) * 9 + square`.
    """

    def __init__(self, codes: np.ndarray, keys: np.ndarray, n: int, c: float) -> None:
        self.codes, self.keys, self.n, self.c = codes, keys, n, c
        nodes = len(codes) * (n + 1)
        self.visits = np.zeros((nodes, SQUARES))
        self.value = np.zeros((nodes, SQUARES))
        self.child = np.zeros((nodes, SQUARES), np.int64)
        self.untried = np.zeros(nodes, np.int64)
        self.roots = np.arange(len(codes)) * (n + 1)
        self.untried[self.roots] = LEGAL_BITS[codes]
        self.cumulative = np.cumsum(uniform_outcomes(), axis=1)

    def run(self) -> np.ndarray:
        for i in range(self.n):
            self._simulate(i)
        return self.visits[self.roots].astype(np.int64)

    def _simulate(self, i: int) -> None:
        number = draw(self.keys, 2 * i)
        rows, node, code = np.arange(len(self.codes)), self.roots, self.codes
        leaf_code, leaf_depth = self.codes.copy(), np.zeros(len(self.codes), np.int64)
        path: list[tuple[np.ndarray, np.ndarray]] = []
        while rows.size:
            untried = self.untried[node]
            fresh = untried != 0
            square = np.where(fresh, pick(untried, number[rows]), self._best(node))
            code = SWAP[code + POWERS[square]]
            edge = node * SQUARES + square
            path.append((rows, edge))
            new = np.flatnonzero(fresh)
            self._expand(
                node[new], square[new], edge[new], self.roots[rows[new]] + i + 1, code[new]
            )
            leaf_code[rows], leaf_depth[rows] = code, len(path)
            on = np.flatnonzero(~(fresh | OVER[code]))
            rows, node, code = rows[on], self.child.ravel()[edge[on]], code[on]
        self._back_up(path, leaf_depth, self._playout(leaf_code, draw(self.keys, 2 * i + 1)))

    def _best(self, node: np.ndarray) -> np.ndarray:
        """Return the square with the highest UCT score, int64 `[rows]`."""
        visits, value = self.visits[node], self.value[node]
        with np.errstate(divide="ignore", invalid="ignore"):
            log_total = np.log(visits.sum(axis=1, keepdims=True))
            score = value / visits + self.c * np.sqrt(log_total / visits)
        result: np.ndarray = np.where(visits > 0, score, -np.inf).argmax(axis=1)
        return result

    def _expand(
        self,
        node: np.ndarray,
        square: np.ndarray,
        edge: np.ndarray,
        new_node: np.ndarray,
        code: np.ndarray,
    ) -> None:
        self.untried[node] ^= 1 << square
        self.child.ravel()[edge] = new_node
        self.untried[new_node] = LEGAL_BITS[code]

    def _playout(self, code: np.ndarray, number: np.ndarray) -> np.ndarray:
        """Return the result of a random game for the player to move at the leaf, `[rows]`."""
        u, edges = uniform(number), self.cumulative[code]
        return np.where(u < edges[:, 0], 1.0, np.where(u < edges[:, 1], 0.0, -1.0))

    def _back_up(
        self, path: list[tuple[np.ndarray, np.ndarray]], depth: np.ndarray, result: np.ndarray
    ) -> None:
        visits, value = self.visits.ravel(), self.value.ravel()
        for d, (rows, edge) in enumerate(path, start=1):
            # The last move belongs to the leaf's opponent; the sign turns with every ply above.
            sign = np.where((depth[rows] - d) % 2 == 0, -1.0, 1.0)
            visits[edge] += 1
            value[edge] += sign * result[rows]
