"""Tic-tac-toe for thousands of agents at once: one step is a few table look-ups for all rows."""

from typing import Any, ClassVar, Literal

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode

from palaestra.envs.instances import Infos, InstanceVectorEnv
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


class TicTacToeVectorEnv(InstanceVectorEnv):
    """N games of `TicTacToeEnv`, stepped together; row n seeded s plays what `TicTacToeEnv` plays.

    Exceptions to that: a "self_play" policy sees the boards of all rows in one call, so rows agree
    only as far as the policy treats each board alone.

    Autoreset happens in the same step: a row that ends returns the next game's first board; its
    last board is in `infos["final_obs"]` and its last info in `infos["final_info"]`, dense arrays
    that are valid where `infos["_final_obs"]` is true. `blunder`, `blunder_possible`, `illegal`,
    `substituted` and `result` (0 while a game is open) in `infos` always describe the step just
    taken; the other entries, including `action_mask`, belong to the observation that is returned.

    Args:
      num_envs: games, N.
      opponent, opponent_options, first, openings, illegal_action: as in `TicTacToeEnv`.

    Raises:
      UserError: an option that is not accepted, named with what is.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": [],
        "autoreset_mode": AutoresetMode.SAME_STEP,
        "episode_infos": {"blunder": "sum", "illegal": "sum"},
    }

    def __init__(
        self,
        num_envs: int = 1,
        opponent: str = "random",
        opponent_options: dict[str, Any] | None = None,
        first: Literal["agent", "opponent", "alternate", "random"] = "agent",
        openings: str | dict[str, int] = "empty",
        illegal_action: Literal["end", "random", "noop"] = "end",
    ) -> None:
        given = {
            "opponent": opponent,
            "opponent_options": opponent_options or {},
            "first": first,
            "openings": openings,
            "illegal_action": illegal_action,
        }
        options = validate(GameOptions, given)
        super().__init__(
            num_envs,
            gymnasium.spaces.MultiDiscrete([3] * SQUARES),
            gymnasium.spaces.Discrete(SQUARES),
        )
        self._illegal_action = options.illegal_action
        self._pool = options.opponents()
        self._start = Start(options, self._pool)
        self._solution = solve()
        self._code = np.zeros(num_envs, np.int64)
        self._t = np.zeros(num_envs, np.int64)
        self._key = np.zeros(num_envs, np.uint64)
        self._who = np.zeros(num_envs, np.int64)
        self._agent_first = np.zeros(num_envs, bool)

    @property
    def opponent_names(self) -> tuple[str, ...]:
        """Return the names that `infos["opponent"]` counts."""
        return self._pool.names

    def set_opponent_policy(self, policy: OpponentPolicy | None) -> None:
        """Set the moves of the "self_play" opponent; until then it plays at random.

        Args:
          policy: from boards int64 `[M, 9]` (1 = the opponent's own stones) to legal squares `[M]`,
            for the M rows that wait for a reply.

        Raises:
          UserError: this environment has no "self_play" opponent.
        """
        self._pool.set_policy(policy)

    def _restart(self) -> tuple[np.ndarray, Infos]:
        self._begin(np.arange(self.num_envs))
        return DIGITS[self._code], self._infos()

    def _begin(self, rows: np.ndarray) -> None:
        """Start the instance (seed, index) in each of `rows`."""
        self._identify(rows)
        keys, agent_first = self._key[rows], self._agent_first[rows]
        codes, opponent_moves = self._start.board(keys, agent_first)
        self._code[rows], self._t[rows] = codes, 0
        self._reply(rows[opponent_moves])

    def _identify(self, rows: np.ndarray) -> None:
        """Set what follows from (seed, index) alone."""
        assert self._seeds is not None
        seeds, indices = self._seeds[rows], self._indices[rows]
        keys = self._keys(rows)
        self._key[rows] = keys
        self._agent_first[rows] = self._start.agent_first(keys, seeds, indices)
        self._who[rows] = self._start.opponent(keys)

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Play all agents' moves and all replies; rows that end begin their next game.

        Raises:
          UserError: an action outside 0..8; no row has moved then.
          gymnasium.error.ResetNeeded: `reset` was never called.
        """
        if self._seeds is None:
            raise ResetNeeded("call reset() before step().")
        actions = self._checked(actions)
        before = self._code.copy()
        legal = LEGAL[before, actions]
        lost = self._move(actions, legal)
        over = OVER[self._code] | lost
        reward = OWN_LINE[self._code] - 1.0 * (OTHER_LINE[self._code] | lost)
        self._t += 1
        step_infos = {
            "blunder": self._solution.blunder[before, actions],
            "blunder_possible": self._solution.blunder_possible[before],
            "illegal": ~legal,
            "substituted": ~legal & (self._illegal_action == "random"),
            "result": np.where(over, reward, 0).astype(np.int64),
        }
        infos: dict[str, Any] = {}
        rows = np.flatnonzero(over)
        if rows.size:
            infos = self._final(over, step_infos)
            self._indices[rows] += 1
            self._begin(rows)
        infos |= self._infos() | step_infos
        return DIGITS[self._code], reward, over, np.zeros(self.num_envs, bool), infos

    def _move(self, actions: np.ndarray, legal: np.ndarray) -> np.ndarray:
        """Play moves and replies; return which rows lost by an illegal action, bool `[N]`."""
        illegal = np.flatnonzero(~legal)
        if illegal.size and self._illegal_action == "random":
            codes = self._code[illegal]
            numbers = draw(self._key[illegal], SUBSTITUTE + STONES[codes])
            actions = actions.copy()
            actions[illegal] = pick(LEGAL_BITS[codes], numbers)
            self._code += POWERS[actions]
        else:
            self._code += np.where(legal, POWERS[actions], 0)
        lost = ~legal & (self._illegal_action == "end")
        self._reply(np.flatnonzero(~(OVER[self._code] | lost)))
        return lost

    def _reply(self, rows: np.ndarray) -> None:
        """Let the opponents of `rows` move."""
        if not rows.size:
            return
        codes = self._code[rows]
        keys = draw(self._key[rows], REPLY + STONES[codes])
        squares = self._pool.reply(self._who[rows], SWAP[codes], keys)
        self._code[rows] = codes + 2 * POWERS[squares]

    def _infos(self) -> dict[str, Any]:
        return {
            "action_mask": LEGAL[self._code],
            "agent_first": self._agent_first.copy(),
            "opponent": self._who.copy(),
            "t": self._t.copy(),
            **self._instance_infos(),
        }

    def _final(self, over: np.ndarray, step_infos: dict[str, np.ndarray]) -> dict[str, Any]:
        info = self._infos() | {name: column.copy() for name, column in step_infos.items()}
        info["action_mask"] &= ~over[:, None]
        return {
            "final_obs": DIGITS[self._code],
            "_final_obs": over.copy(),
            "final_info": info,
            "_final_info": over.copy(),
        }

    def get_state(self) -> dict[str, Any]:
        """Return what decides the rest of all games and all later ones."""
        return self._instance_state() | {"code": self._code.copy(), "t": self._t.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue exactly where `get_state` was called on an environment with the same options."""
        self._code, self._t = np.array(state["code"]), np.array(state["t"])
        if self._set_instance(state):
            self._identify(np.arange(self.num_envs))
