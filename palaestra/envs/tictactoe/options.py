"""Options that the single and the vector environment share, and how a game begins."""

from typing import Any, Literal

import numpy as np
from pydantic import Field

from palaestra.envs.tictactoe.opponents import OpponentPool
from palaestra.envs.tictactoe.rules import FIRST, LEGAL_BITS, MEETS, OPENING, POWERS, draw, pick
from palaestra.options import Options


class RandomPlies(Options):
    """Openings with some random moves already played."""

    random_plies: int = Field(
        ge=0, le=3, description="moves played at random first; the fifth stone may end a game"
    )


class GameOptions(Options):
    """Options of Tic-tac-toe."""

    opponent: str = Field("random", description="opponent by name, or 'mix'")
    opponent_options: dict[str, Any] = Field(
        default_factory=dict, description="the opponent's options; for 'mix', opponent -> weight"
    )
    first: Literal["agent", "opponent", "alternate", "random"] = Field(
        "agent",
        description="who opens; 'alternate' changes from episode to episode: the agent where seed "
        "plus index is even",
    )
    openings: Literal["empty"] | RandomPlies = Field(
        "empty", description="the board at the start: 'empty' or {'random_plies': k}"
    )
    illegal_action: Literal["end", "random", "noop"] = Field(
        "end",
        description="an occupied square: loses the game, is replaced by a random legal move, or "
        "loses the turn",
    )

    @property
    def plies(self) -> int:
        """Return the number of random moves before the game."""
        return 0 if self.openings == "empty" else self.openings.random_plies

    def opponents(self) -> OpponentPool:
        """Return the opponents that these options name."""
        return OpponentPool(self.opponent, self.opponent_options)


class Start:
    """How games begin: who opens, whom the agent meets, and the board before anyone chooses.

    Whoever opens also owns the first, third, ... stone of a random opening, and the side to move
    follows from the number of stones.
    """

    def __init__(self, options: GameOptions, pool: OpponentPool) -> None:
        self.first = options.first
        self.plies = options.plies
        self.pool = pool

    def agent_first(self, keys: np.ndarray, seeds: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """Return whether the agent opens, bool `[M]`, for the instances with these keys."""
        if self.first == "alternate":
            # With the seed, because evaluation plays episode 0 of many seeds.
            return (seeds + indices) % 2 == 0
        if self.first == "random":
            return draw(keys, FIRST) >> np.uint64(63) == 0
        return np.full(len(keys), self.first == "agent")

    def opponent(self, keys: np.ndarray) -> np.ndarray:
        """Return the opponent's place in the pool, int64 `[M]`."""
        if len(self.pool.names) == 1:
            return np.zeros(len(keys), np.int64)
        return self.pool.assign(draw(keys, MEETS))

    def board(self, keys: np.ndarray, agent_first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return codes int64 `[M]` and whether the opponent is to move, bool `[M]`."""
        codes = np.zeros(len(keys), np.int64)
        for ply in range(self.plies):
            squares = pick(LEGAL_BITS[codes], draw(keys, OPENING + ply))
            stone = np.where(agent_first == (ply % 2 == 0), 1, 2)
            codes = codes + stone * POWERS[squares]
        return codes, agent_first == (self.plies % 2 == 1)
