"""The suite `tictactoe`, with exact figures."""

from typing import Literal

from palaestra.envs.suites.base import Suite, Task

# (opponent, who opens): return of uniform play, of a perfect player that breaks ties uniformly, and
# of the best response. MCTS with 1000 simulations is taken for perfect.
_GAMES: dict[tuple[str, Literal["agent", "opponent"]], tuple[float, float, float]] = {
    ("random", "agent"): (0.2968, 0.9678, 0.9948),
    ("random", "opponent"): (-0.2968, 0.7775, 0.9249),
    ("minimax", "agent"): (-0.7775, 0.0, 0.0),
    ("minimax", "opponent"): (-0.9678, 0.0, 0.0),
    ("noisy", "agent"): (-0.2173, 0.7314, 0.7949),
    ("noisy", "opponent"): (-0.6569, 0.4660, 0.5921),
    ("mcts", "agent"): (-0.7775, 0.0, 0.0),
    ("mcts", "opponent"): (-0.9678, 0.0, 0.0),
}

_GAME_TAGS = {"noisy": ("extra",), "mcts": ("extra", "slow")}


def _game(opponent: str, first: Literal["agent", "opponent"]) -> Task:
    uniform, perfect, best = _GAMES[opponent, first]
    order = "first" if first == "agent" else "second"
    approximate = " against a perfect opponent, which mcts only nearly is"
    return Task(
        id=f"tictactoe/{opponent}-{order}",
        env_id="palaestra/TicTacToe-v0",
        env_kwargs={"opponent": opponent, "first": first},
        low=uniform,
        high=best,
        source="exact, by dynamic programming" + (approximate if opponent == "mcts" else ""),
        tags=(opponent, order, *_GAME_TAGS.get(opponent, ())),
        wrappers=("action-mask",),
        reference={"return/random": uniform, "return/perfect": perfect, "return/best": best},
    )


TICTACTOE = Suite(
    name="tictactoe",
    version=1,
    tasks=tuple(_game(opponent, first) for opponent, first in _GAMES),
    protocol=(
        "whole games from the empty board, reward +1, 0 or -1 at the end; opponents answer a board "
        "the same way for every agent; score 0 is uniform play, 1 the best response"
    ),
    tags=("game",),
    description="Tic-tac-toe against random and perfect play, opening and replying.",
)
