"""Tic-tac-toe for one agent: the opponent's reply is part of the step."""

from typing import Any, ClassVar, Literal

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded

from palaestra.envs.instances import InstanceEnv
from palaestra.envs.noise import instance_keys
from palaestra.envs.tictactoe.opponents import OpponentPolicy
from palaestra.envs.tictactoe.options import GameOptions, Start
from palaestra.envs.tictactoe.rules import (
    DIGITS,
    LEGAL,
    LEGAL_BITS,
    OTHER_LINE,
    OVER,
    OWN_LINE,
    POWERS,
    REPLY,
    SQUARES,
    STONES,
    SUBSTITUTE,
    SWAP,
    draw,
    pick,
)
from palaestra.envs.tictactoe.solver import solve
from palaestra.options import validate


class TicTacToeEnv(InstanceEnv):
    """Tic-tac-toe against a scripted opponent that is part of the environment.

    ## Observation space
    `MultiDiscrete([3] * 9)`: the squares row by row, 0 empty, 1 the agent's, 2 the
    opponent's. A reset shows the opponent's first move where the opponent opens.

    ## Action space
    `Discrete(9)`: the square to play. Legal squares are in `info["action_mask"]`, bool `[9]`.

    ## Rewards
    +1 for a win, -1 for a loss, 0 otherwise.

    ## Episode end
    Terminates with three in a row or a full board, and, by default, with an illegal action, which
    loses. It never truncates.

    ## Instances
    Episode `index` of an environment seeded `seed` is a pure function of both: who opens, whom the
    agent meets, the random opening and all that the opponent draws. `reset(seed=s,
    options={"index": i})` starts there; a reset without a seed goes to the next index.

    ## Info
    | key | meaning |
    | --- | --- |
    | `action_mask` | bool `[9]`, legal squares; none at the end |
    | `agent_first` | whether the agent opened |
    | `opponent` | place of the opponent in `opponent_names` |
    | `t` | decisions that the agent has made |
    | `instance_seed`, `instance_index` | the instance |
    | `blunder` | steps: the legal move lowered the value under perfect play |
    | `blunder_possible` | steps: the board before the move allowed a blunder |
    | `illegal`, `substituted` | steps: the action was illegal; another move was played for it |
    | `result` | at the end: +1 won, 0 drawn, -1 lost |

    Args:
      opponent: "random", "minimax", "mcts", "noisy", "self_play", or "mix", where each episode
        meets one of several.
      opponent_options: options of the opponent, e.g. `{"p": 0.5, "base": "minimax"}` for "noisy"
        and `{"random": 0.5, "minimax": 0.5}` for "mix".
      first: who opens: "agent", "opponent", "alternate" (changes from episode to episode; the agent
        where seed + index is even), "random".
      openings: "empty", or `{"random_plies": k}` with k in 0..3 random moves already played.
      illegal_action: "end" (the game is lost), "random" (a random legal move is played instead) or
        "noop" (the turn is lost and the opponent plays).
      render_mode: "ansi" or None.

    Raises:
      UserError: an option that is not accepted, named with what is.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["ansi"],
        "render_fps": 4,
        "episode_infos": {"blunder": "sum", "illegal": "sum"},
    }

    def __init__(
        self,
        opponent: str = "random",
        opponent_options: dict[str, Any] | None = None,
        first: Literal["agent", "opponent", "alternate", "random"] = "agent",
        openings: str | dict[str, int] = "empty",
        illegal_action: Literal["end", "random", "noop"] = "end",
        render_mode: str | None = None,
    ) -> None:
        given = {
            "opponent": opponent,
            "opponent_options": opponent_options or {},
            "first": first,
            "openings": openings,
            "illegal_action": illegal_action,
        }
        options = validate(GameOptions, given)
        self.observation_space = gymnasium.spaces.MultiDiscrete([3] * SQUARES)
        self.action_space = gymnasium.spaces.Discrete(SQUARES)
        self.render_mode = render_mode
        self._illegal_action = options.illegal_action
        self._pool = options.opponents()
        self._start = Start(options, self._pool)
        self._solution = solve()
        self._code, self._t, self._over = 0, 0, True

    @property
    def opponent_names(self) -> tuple[str, ...]:
        """Return the names that `info["opponent"]` counts."""
        return self._pool.names

    def set_opponent_policy(self, policy: OpponentPolicy | None) -> None:
        """Set the moves of the "self_play" opponent; until then it plays at random.

        Args:
          policy: from boards int64 `[M, 9]` (1 = the opponent's own stones) to legal squares `[M]`.

        Raises:
          UserError: this environment has no "self_play" opponent.
        """
        self._pool.set_policy(policy)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start the instance (seed, `options["index"]`), or the next one without a seed."""
        self._choose(seed, options)
        self._begin()
        return self._observation(), self._info()

    def _begin(self) -> None:
        self._identify()
        codes, opponent_moves = self._start.board(self._keys, np.array([self._agent_first]))
        self._code, self._t, self._over = int(codes[0]), 0, False
        if opponent_moves[0]:
            self._reply()

    def _identify(self) -> None:
        """Set what follows from (seed, index) alone."""
        seeds, indices = np.array([self._seed]), np.array([self._index])
        self._keys = instance_keys(seeds, indices)
        self._agent_first = bool(self._start.agent_first(self._keys, seeds, indices)[0])
        self._who = self._start.opponent(self._keys)

    def step(
        self, action: int | np.integer
    ) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Play the agent's move and, unless it ends the game, the opponent's reply.

        Raises:
          UserError: the action is outside 0..8.
          gymnasium.error.ResetNeeded: the game is over.
        """
        if self._over:
            raise ResetNeeded("the game is over: call reset() before step().")
        action = self._checked(action)
        before, legal = self._code, bool(LEGAL[self._code, action])
        reward = self._play(action, legal)
        self._t += 1
        info = self._info() | {
            "blunder": bool(self._solution.blunder[before, action]),
            "blunder_possible": bool(self._solution.blunder_possible[before]),
            "illegal": not legal,
            "substituted": not legal and self._illegal_action == "random",
        }
        if self._over:
            info["result"] = int(reward)
        return self._observation(), reward, self._over, False, info

    def _play(self, action: int, legal: bool) -> float:
        """Advance the game by the agent's move and the reply; return the reward."""
        if not legal and self._illegal_action == "end":
            self._over = True
            return -1.0
        if not legal and self._illegal_action == "random":
            word = SUBSTITUTE + STONES[self._code]
            action = int(pick(LEGAL_BITS[[self._code]], draw(self._keys, word))[0])
            legal = True
        if legal:
            self._code += int(POWERS[action])
        if not OVER[self._code]:
            self._reply()
        self._over = bool(OVER[self._code])
        return float(OWN_LINE[self._code]) - float(OTHER_LINE[self._code])

    def _reply(self) -> None:
        keys = draw(self._keys, REPLY + STONES[self._code])
        square = self._pool.reply(self._who, SWAP[[self._code]], keys)[0]
        self._code += 2 * int(POWERS[square])

    def _observation(self) -> np.ndarray:
        return DIGITS[self._code].copy()

    def _info(self) -> dict[str, Any]:
        return {
            "action_mask": LEGAL[self._code] & (not self._over),
            "agent_first": self._agent_first,
            "opponent": int(self._who[0]),
            "t": self._t,
            "instance_seed": self._seed,
            "instance_index": self._index,
        }

    def render(self) -> str | None:
        """Return the board as three lines, X the agent's stones and O the opponent's."""
        if self.render_mode is None:
            return None
        marks = "".join(".XO"[digit] for digit in DIGITS[self._code])
        return "\n".join(marks[row : row + 3] for row in (0, 3, 6))

    def get_state(self) -> dict[str, Any]:
        """Return what decides the rest of the game and all later ones."""
        return self._instance_state() | {"code": self._code, "t": self._t, "over": self._over}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue exactly where `get_state` was called on an environment with the same options."""
        if self._set_instance(state):
            self._identify()
        self._code, self._t, self._over = state["code"], state["t"], state["over"]
