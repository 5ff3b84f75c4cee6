"""RepeatPrevious: at every step, name the symbol of k steps ago."""

from typing import ClassVar, Self

import numpy as np
from gymnasium.spaces import Discrete
from pydantic import Field, model_validator

from palaestra.envs import noise
from palaestra.envs.memory.script import MAX_SYMBOLS, ScriptEnv, ScriptOptions, ScriptVectorEnv


class RepeatPreviousOptions(ScriptOptions):
    """Options of RepeatPrevious."""

    k: int = Field(4, ge=1, description="How many steps ago the asked symbol was shown.")
    K: int = Field(4, ge=2, le=MAX_SYMBOLS, description="Number of symbols.")
    T: int = Field(52, ge=2, description="Steps of an episode, more than k.")

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if self.k >= self.T:
            raise ValueError(f"nothing is asked: T = {self.T} must be larger than k = {self.k}")
        return self

    @property
    def observation_space(self) -> Discrete:
        """Return the space of the observations of one row."""
        return Discrete(self.K)

    @property
    def action_space(self) -> Discrete:
        """Return the space of the actions of one row."""
        return Discrete(self.K)

    @property
    def steps(self) -> int:
        """Return the length of an episode, T."""
        return self.T

    @property
    def rewards(self) -> tuple[float, float]:
        """Return what a right and a wrong answer pay: returns lie between -1 and 1."""
        return 1 / (self.T - self.k), -1 / (self.T - self.k)

    def write(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return observations int16 `[M, T + 1]` and answers int16 `[M, T]`."""
        number = np.arange(self.T + 1, dtype=np.uint64)
        symbols = noise.integer(noise.bits(keys[:, None], number), self.K).astype(np.int16)
        answers = np.full((len(keys), self.T), -1, np.int16)
        answers[:, self.k :] = symbols[:, : self.T - self.k]
        return symbols, answers


class RepeatPreviousEnv(ScriptEnv):
    """At every step, name the symbol that was shown k steps ago.

    ## Description
    Each step shows one of K symbols, drawn uniformly and independently. From step k on the agent
    names the symbol of k steps before; k = 1 is the one before the present. The task of POPGym
    (arXiv 2303.01859) with two differences: POPGym deals from shuffled packs of cards, so that what
    was shown tells a little about the rest, and its k counts the present symbol, too, so that its
    k = 4 is 3 here.

    ## Action Space
    `Discrete(K)`: the symbol to name.

    ## Observation Space
    `Discrete(K)`: the symbol shown.

    ## Rewards
    `+1/(T - k)` for a right answer and `-1/(T - k)` for a wrong one, 0 in the first k steps, so
    that returns lie between -1 and 1. Without memory `2/K - 1` on average, whatever is answered;
    with memory 1. `info` holds what the agent must not see: `answer`, the right action of the next
    step (-1 where nothing is asked), `t`, `instance_seed`, `instance_index`.

    ## Starting State
    `reset(seed=s)` begins instance (s, 0), `reset(seed=s, options={"index": i})` instance (s, i),
    and each later `reset()` the next index.

    ## Episode End
    Terminates after T steps. Never truncates.

    ## Arguments
    `k` (4), `K` (4), `T` (52).

    ## Vector Version
    `RepeatPreviousVectorEnv`: row n seeded s plays what this environment seeded s plays.

    ## Version History
    * v0: first version.
    """

    Config: ClassVar[type[ScriptOptions]] = RepeatPreviousOptions


class RepeatPreviousVectorEnv(ScriptVectorEnv):
    """N times RepeatPrevious; see `RepeatPreviousEnv` for the task and its arguments."""

    Config: ClassVar[type[ScriptOptions]] = RepeatPreviousOptions
