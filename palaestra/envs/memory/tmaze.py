"""TMaze: a sign at the start says where to turn at the end of a corridor."""

from typing import Any, ClassVar, Self

import numpy as np
from gymnasium.spaces import Discrete
from pydantic import Field, model_validator

from palaestra.envs import noise
from palaestra.envs.memory.env import MemoryEnv
from palaestra.envs.memory.options import MemoryOptions
from palaestra.envs.memory.vector import MemoryVectorEnv

NORTH, EAST, SOUTH, WEST = range(4)
SIGN_NORTH, SIGN_SOUTH, CORRIDOR, JUNCTION = range(4)

GOAL, PENALTY = 4.0, -0.1
"""Reward of the right turn; of the wrong turn, and of walking against a wall."""


class TMazeOptions(MemoryOptions):
    """Options of the T-maze."""

    length: int = Field(10, ge=1, description="Steps from the start to the junction.")
    limit: int | None = Field(
        None, ge=1, description="Steps after which an episode is cut off; 4 (length + 1) if None."
    )

    @model_validator(mode="after")
    def _can_be_walked(self) -> Self:
        if self.limit is not None and self.limit <= self.length:
            raise ValueError(f"no turn within limit = {self.limit} steps and length {self.length}")
        return self

    @property
    def observation_space(self) -> Discrete:
        """Return the space of the observations of one row."""
        return Discrete(4)

    @property
    def action_space(self) -> Discrete:
        """Return the space of the actions of one row."""
        return Discrete(4)

    @property
    def steps(self) -> int:
        """Return the largest length of an episode."""
        return 4 * (self.length + 1) if self.limit is None else self.limit

    def signs(self, keys: np.ndarray) -> np.ndarray:
        """Return what the signs of the instances with `keys [M]` say, int64 `[M]`."""
        return noise.integer(keys, 2)


class Maze:
    """The maze as tables over its states: `state = sign * (length + 1) + x`, x steps to the east.

    Attributes:
      seen: observations `[S]`.
      answer: best actions `[S]`.
      after: next states, flat `[S * 4]` like the rest: state * 4 + action.
      reward: float64 `[S * 4]`.
      ends: whether the action turns at the junction, bool `[S * 4]`.
    """

    def __init__(self, length: int) -> None:
        state = np.arange(2 * (length + 1))
        sign, x = state // (length + 1), state % (length + 1)
        junction = x == length
        turn = np.where(sign == SIGN_SOUTH, SOUTH, NORTH)
        self.seen = np.where(junction, JUNCTION, np.where(x == 0, sign, CORRIDOR))
        self.answer = np.where(junction, turn, EAST)
        action = np.arange(4)
        step = np.array([0, 1, 0, -1])
        x_after = (x[:, None] + step).clip(0, length)
        ends = junction[:, None] & (step == 0)
        stands = x_after == x[:, None]
        right = ends & (action == turn[:, None])
        self.after = (state[:, None] + x_after - x[:, None]).ravel()
        self.reward = np.where(right, GOAL, np.where(stands, PENALTY, 0.0)).ravel()
        self.ends = ends.ravel()


class TMazeEnv(MemoryEnv):
    """A sign at the start of a corridor says where to turn at its end.

    ## Description
    The T-maze of Bakker, "Reinforcement learning with long short-term memory" (NeurIPS 2001). The
    agent starts at the west end of a corridor, where a sign says north or south, each with
    probability 1/2. `length` steps to the east is a junction, which looks the same in both
    cases. The right turn is the one that the sign said.

    ## Action Space
    `Discrete(4)`: 0 north, 1 east, 2 south, 3 west. Where there is a wall, the agent stays.

    ## Observation Space
    `Discrete(4)`: 0 the sign "north" and 1 the sign "south", seen at the start alone; 2 the
    corridor; 3 the junction. The paper shows them as the bits 011, 110, 101 and 010.

    ## Rewards
    4 for the right turn at the junction, -0.1 for the wrong one and for each step against a wall,
    otherwise 0. Without memory 1.95 at best: to the junction, and either turn; with memory 4.
    `info` holds what the agent must not see: `answer`, the best action of the next step, `t`,
    `instance_seed`, `instance_index`.

    ## Starting State
    `reset(seed=s)` begins instance (s, 0), `reset(seed=s, options={"index": i})` instance (s, i),
    and each later `reset()` the next index.

    ## Episode End
    Terminates with a turn at the junction. Truncates after `limit` steps, a bound that Bakker's
    task does not have.

    ## Arguments
    `length` (10), `limit` (4 (length + 1)).

    ## Vector Version
    `TMazeVectorEnv`: row n seeded s plays what this environment seeded s plays.

    ## Version History
    * v0: first version.
    """

    Config: ClassVar[type[MemoryOptions]] = TMazeOptions

    def __init__(self, render_mode: str | None = None, **options: Any) -> None:
        super().__init__(render_mode, **options)
        self._maze = Maze(self.options.length)
        self._state = 0

    def _begin(self, key: np.ndarray) -> None:
        self._state = int(self.options.signs(key)[0]) * (self.options.length + 1)

    def _advance(self, action: int) -> tuple[float, bool, bool]:
        taken = 4 * self._state + action
        self._state = int(self._maze.after[taken])
        ends = bool(self._maze.ends[taken])
        cut = not ends and self._t + 1 >= self.options.steps
        return float(self._maze.reward[taken]), ends, cut

    def _observe(self) -> np.int64:
        return self._maze.seen[self._state]

    def _answer(self) -> int:
        return int(self._maze.answer[self._state])

    def get_state(self) -> dict[str, Any]:
        """Return what `set_state` needs to continue exactly here."""
        return super().get_state() | {"state": self._state}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `get_state` returned."""
        super().set_state(state)
        self._state = int(state["state"])


class TMazeVectorEnv(MemoryVectorEnv):
    """N times TMaze; see `TMazeEnv` for the task and its arguments."""

    Config: ClassVar[type[MemoryOptions]] = TMazeOptions

    def __init__(self, num_envs: int, **options: Any) -> None:
        super().__init__(num_envs, **options)
        self._maze = Maze(self.options.length)
        self._state = np.zeros(num_envs, np.int64)

    def _begin(self, rows: np.ndarray, keys: np.ndarray) -> None:
        self._state[rows] = self.options.signs(keys) * (self.options.length + 1)

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        taken = 4 * self._state + actions
        self._state = self._maze.after.take(taken)
        ends = self._maze.ends.take(taken)
        return self._maze.reward.take(taken), ends, (self._t + 1 >= self.options.steps) & ~ends

    def _observe(self) -> np.ndarray:
        return self._maze.seen.take(self._state)

    def _answer(self) -> np.ndarray:
        return self._maze.answer.take(self._state)

    def get_state(self) -> dict[str, Any]:
        """Return what `set_state` needs to continue exactly here."""
        return super().get_state() | {"state": self._state.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `get_state` returned."""
        super().set_state(state)
        self._state = np.array(state["state"], np.int64)
