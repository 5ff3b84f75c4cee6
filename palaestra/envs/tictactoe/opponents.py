"""Opponents: pure functions from boards and stream keys to moves, batched over games.

An opponent sees the board with its own stones as 1. It holds no random state: what it draws is a
function of the key that belongs to the game and the number of stones, so games never disturb each
other and a stored game continues exactly.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from palaestra.envs.noise import uniform
from palaestra.envs.tictactoe.mcts import most_visited, search
from palaestra.envs.tictactoe.rules import DIGITS, LEGAL_BITS, draw, lowest, pick
from palaestra.envs.tictactoe.solver import solve
from palaestra.errors import UserError, did_you_mean
from palaestra.options import Options, validate

OpponentPolicy = Callable[[np.ndarray], np.ndarray]
"""Boards int64 `[M, 9]`, seen by the opponent (1 = its own stones) -> legal squares int `[M]`."""


class Opponent(ABC):
    """Answers a batch of boards with one legal move each."""

    Config: ClassVar[type[Options]] = Options

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def reply(self, codes: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Return one legal square for each board.

        Args:
          codes: int64 `[M]`, boards seen by the opponent, none of them over.
          keys: uint64 `[M]`, a random number for each move, or the key of a stream of them.
        """


class Random(Opponent):
    """Plays uniformly over the legal moves."""

    def reply(self, codes: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Return uniform legal squares, int64 `[M]`."""
        return pick(LEGAL_BITS[codes], keys)


class Minimax(Opponent):
    """Plays perfectly, by the exact solution."""

    class Config(Options):
        """Options of the perfect player."""

        tie: Literal["uniform", "first"] = Field(
            "uniform", description="choice among equal moves: at random, or the lowest square"
        )
        prefer_fast_win: bool = Field(
            False, description="among perfect moves take the soonest win or the latest loss"
        )

    def reply(self, codes: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Return perfect squares, int64 `[M]`."""
        solution = solve()
        moves = (solution.fastest if self.config.prefer_fast_win else solution.optimal)[codes]
        return lowest(moves) if self.config.tie == "first" else pick(moves, keys)


class MCTS(Opponent):
    """Plays the most visited move of a Monte-Carlo tree search; near perfect from n = 1000."""

    class Config(Options):
        """Options of the search."""

        n: int = Field(1000, ge=1, description="simulations for each move")
        c: float = Field(2**0.5, ge=0, description="exploration constant of UCT")

    def reply(self, codes: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Return the squares that the search visited most, int64 `[M]`."""
        visits = search(codes, draw(keys, 0), self.config.n, self.config.c)
        return most_visited(visits, draw(keys, 1))


class Noisy(Opponent):
    """Plays a random move with probability p, otherwise as another opponent does."""

    class Config(Options):
        """Options of the mixture of moves."""

        p: float = Field(0.5, ge=0, le=1, description="probability of a random move")
        base: Literal["minimax", "mcts"] = Field("minimax", description="the other opponent")
        base_options: dict[str, Any] = Field(
            default_factory=dict, description="options of the other opponent"
        )

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._base = make_opponent(config.base, config.base_options)

    def reply(self, codes: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Return legal squares, int64 `[M]`."""
        squares = pick(LEGAL_BITS[codes], draw(keys, 1))
        sober = np.flatnonzero(uniform(draw(keys, 0)) >= self.config.p)
        if sober.size:
            squares[sober] = self._base.reply(codes[sober], draw(keys[sober], 2))
        return squares


class SelfPlay(Opponent):
    """Plays as the function given by `set_policy`; like `Random` until one is given.

    The function owns its randomness: a game is reproducible as far as the function is.
    """

    policy: OpponentPolicy | None = None

    def reply(self, codes: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Return the squares that the function chooses, int64 `[M]`.

        Raises:
          UserError: the function chose an illegal square.
        """
        if self.policy is None:
            return pick(LEGAL_BITS[codes], keys)
        boards = DIGITS[codes]
        squares = np.asarray(self.policy(boards)).astype(np.int64)
        wrong = np.flatnonzero(LEGAL_BITS[codes] >> squares & 1 == 0)
        if wrong.size:
            board = "".join(map(str, boards[wrong[0]]))
            raise UserError(
                f"the opponent's policy chose square {squares[wrong[0]]} on board {board} "
                "(0 empty, 1 its own, 2 the agent's); it must choose an empty square."
            )
        return squares


OPPONENTS: dict[str, type[Opponent]] = {
    "random": Random,
    "minimax": Minimax,
    "mcts": MCTS,
    "noisy": Noisy,
    "self_play": SelfPlay,
}


def make_opponent(name: str, options: Mapping[str, Any], where: str = "opponent") -> Opponent:
    """Build an opponent by name.

    Raises:
      UserError: unknown name or option.
    """
    if name not in OPPONENTS:
        raise UserError(f"{where}: unknown opponent {name!r}; {did_you_mean(name, OPPONENTS)}")
    cls = OPPONENTS[name]
    return cls(validate(cls.Config, options, f"{where}_options"))


class OpponentPool:
    """The opponents of an environment; each episode meets one of them.

    Args:
      name: an opponent, or "mix".
      options: the opponent's options. For "mix": opponent -> weight, or opponent -> a dict with its
        `weight` and its options.

    Raises:
      UserError: unknown name or option, or weights that are not positive.
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        parts = _mixture(options) if name == "mix" else {name: (1.0, options)}
        self.names = tuple(parts)
        self._opponents = [make_opponent(part, parts[part][1]) for part in parts]
        weights = np.array([weight for weight, _ in parts.values()])
        self._edges = np.cumsum(weights / weights.sum())[:-1]

    def assign(self, numbers: np.ndarray) -> np.ndarray:
        """Choose an opponent for each 64-bit random number, int64 `[M]`."""
        return np.searchsorted(self._edges, uniform(numbers), side="right")

    def reply(self, who: np.ndarray, codes: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Let opponent `who[m]` answer board m, int64 `[M]`."""
        if len(self._opponents) == 1:
            return self._opponents[0].reply(codes, keys)
        squares = np.empty(len(codes), np.int64)
        for i, opponent in enumerate(self._opponents):
            rows = np.flatnonzero(who == i)
            if rows.size:
                squares[rows] = opponent.reply(codes[rows], keys[rows])
        return squares

    def set_policy(self, policy: OpponentPolicy | None) -> None:
        """Give the `self_play` opponent its function; None makes it random again.

        Raises:
          UserError: `self_play` is not among the opponents.
        """
        players = [player for player in self._opponents if isinstance(player, SelfPlay)]
        if not players:
            raise UserError(
                f"opponent: {', '.join(self.names)} takes no policy; use opponent='self_play'."
            )
        for player in players:
            player.policy = policy


def _mixture(options: Mapping[str, Any]) -> dict[str, tuple[float, dict[str, Any]]]:
    """Return name -> (weight, options) of a mixture."""
    parts: dict[str, tuple[float, dict[str, Any]]] = {}
    for name, given in options.items():
        part = dict(given) if isinstance(given, Mapping) else {"weight": given}
        weight = part.pop("weight", None)
        if not isinstance(weight, int | float) or not weight > 0:
            raise UserError(
                f"opponent_options.{name}: {given!r} is not accepted: give a positive weight, or a "
                "dict with a positive 'weight' and the opponent's options."
            )
        parts[name] = (float(weight), part)
    if not parts:
        raise UserError(
            f"opponent_options: a mix needs weights for some of {', '.join(OPPONENTS)}."
        )
    return parts
