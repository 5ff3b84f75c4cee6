"""Players of Tic-tac-toe that know the rules: perfect play, and Monte-Carlo tree search.

They read the nine squares (0 empty, 1 own, 2 opponent), with or without the action mask around
them, and remember nothing.
"""

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import gymnasium
import numpy as np
from pydantic import Field

from palaestra.agents.base import Actor, Agent, Mode, Step
from palaestra.agents.setup import Setup
from palaestra.envs.tictactoe.mcts import most_visited, search
from palaestra.envs.tictactoe.rules import SQUARES, encode, lowest, pick
from palaestra.envs.tictactoe.solver import solve
from palaestra.errors import UserError
from palaestra.experience.fragment import Tree
from palaestra.experience.state import State
from palaestra.options import Options


class BoardPlayer(Actor):
    """Chooses a square from the board alone."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def initial_state(self, batch: int) -> State:
        """Return the empty state."""
        return State()

    def act(
        self,
        observation: Tree,
        state: State,
        reset: np.ndarray,
        rng: np.random.Generator,
        mode: Mode,
    ) -> Step:
        """Choose one square for each board `[N, 9]`."""
        boards = observation["observation"] if isinstance(observation, dict) else observation
        return self.choose(encode(boards), rng, mode), state, {}

    @abstractmethod
    def choose(self, codes: np.ndarray, rng: np.random.Generator, mode: Mode) -> np.ndarray:
        """Return one legal square for each board code, int64 `[N]`."""


class MinimaxPlayer(BoardPlayer):
    """Plays perfect moves; both modes choose among them by the option `tie`."""

    def choose(self, codes: np.ndarray, rng: np.random.Generator, mode: Mode) -> np.ndarray:
        """Return perfect squares, int64 `[N]`."""
        solution = solve()
        moves = (solution.fastest if self.config.prefer_fast_win else solution.optimal)[codes]
        return lowest(moves) if self.config.tie == "first" else pick(moves, _numbers(rng, codes))


class MCTSPlayer(BoardPlayer):
    """Plays the most visited move ("greedy"), or moves in proportion to their visits ("sample")."""

    def choose(self, codes: np.ndarray, rng: np.random.Generator, mode: Mode) -> np.ndarray:
        """Return the squares that a search finds, int64 `[N]`."""
        visits = search(codes, _numbers(rng, codes), self.config.n, self.config.c)
        if mode == "greedy":
            return most_visited(visits, _numbers(rng, codes))
        chosen = rng.integers(self.config.n, size=len(codes))
        result: np.ndarray = (visits.cumsum(axis=1) > chosen[:, None]).argmax(axis=1)
        return result


def _numbers(rng: np.random.Generator, codes: np.ndarray) -> np.ndarray:
    """Return one 64-bit random number for each board, uint64 `[N]`."""
    return rng.integers(2**64, size=len(codes), dtype=np.uint64)


class _TicTacToeAgent(Agent):
    """Checks that the spaces are those of Tic-tac-toe."""

    player: ClassVar[type[BoardPlayer]]

    def __init__(self, config: Any, setup: Setup) -> None:
        super().__init__(config, setup)
        board = setup.observation_space
        if isinstance(board, gymnasium.spaces.Dict):
            board = board["observation"]
        if board != gymnasium.spaces.MultiDiscrete([3] * SQUARES):
            raise UserError(
                f"observation space {board}: this agent reads the nine squares of Tic-tac-toe."
            )

    def make_actor(self, worker: int = 0, workers: int = 1) -> BoardPlayer:
        """Return a player."""
        return self.player(self.config)


class Minimax(_TicTacToeAgent):
    """Perfect Tic-tac-toe: never loses, and wins where the opponent blunders."""

    player = MinimaxPlayer

    class Config(Options):
        """Options of the perfect player."""

        tie: Literal["uniform", "first"] = Field(
            "uniform", description="choice among equal moves: at random, or the lowest square"
        )
        prefer_fast_win: bool = Field(
            False, description="among perfect moves take the soonest win or the latest loss"
        )


class MCTS(_TicTacToeAgent):
    """Tic-tac-toe by Monte-Carlo tree search with random playouts; near perfect from n = 1000."""

    player = MCTSPlayer

    class Config(Options):
        """Options of the search."""

        n: int = Field(1000, ge=1, description="simulations for each move")
        c: float = Field(2**0.5, ge=0, description="exploration constant of UCT")
