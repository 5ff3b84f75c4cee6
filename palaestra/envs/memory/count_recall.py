"""CountRecall: say how often the asked symbol has been shown."""

from typing import ClassVar

import numpy as np
from gymnasium.spaces import Discrete, MultiDiscrete
from pydantic import Field

from palaestra.envs import noise
from palaestra.envs.memory.script import ScriptEnv, ScriptOptions, ScriptVectorEnv

_SHOWN, _ASKED = np.uint64(0), np.uint64(1)
_CARD = np.uint64(0xFFFF)


class CountRecallOptions(ScriptOptions):
    """Options of CountRecall."""

    K: int = Field(2, ge=2, le=256, description="Number of symbols.")
    copies: int = Field(
        26, ge=1, le=255, description="How often each symbol is in the pack; T = K * copies."
    )

    @property
    def observation_space(self) -> MultiDiscrete:
        """Return the space of the observations of one row."""
        return MultiDiscrete([self.K, self.K])

    @property
    def action_space(self) -> Discrete:
        """Return the space of the actions of one row."""
        return Discrete(self.copies + 1)

    @property
    def steps(self) -> int:
        """Return the length of an episode: a whole pack."""
        return self.K * self.copies

    @property
    def rewards(self) -> tuple[float, float]:
        """Return what a right and a wrong answer pay: returns lie between -1 and 1."""
        return 1 / self.steps, -1 / self.steps

    def write(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return observations int16 `[M, T + 1, 2]` and answers int16 `[M, T]`."""
        shown, asked = (self._shuffled(noise.bits(keys, pack)) for pack in (_SHOWN, _ASKED))
        answers = np.zeros(shown.shape, np.int16)
        for symbol in range(self.K):
            answers += (shown == symbol).cumsum(axis=1, dtype=np.int16) * (asked == symbol)
        observations = np.empty((len(keys), self.steps + 1, 2), np.int16)
        observations[:, :-1, 0], observations[:, :-1, 1] = shown, asked
        observations[:, -1] = observations[:, -2]
        return observations, answers

    def _shuffled(self, keys: np.ndarray) -> np.ndarray:
        """Return shuffled packs `[M, T]`: random numbers whose low bits name the card, in order."""
        card = np.arange(self.steps, dtype=np.uint64)
        numbers = noise.bits(keys[:, None], card)
        numbers = np.sort((numbers & ~_CARD) | card, axis=1).astype(np.uint16)
        return (numbers % np.uint16(self.K)).astype(np.int16)


class CountRecallEnv(ScriptEnv):
    """Say how often the asked symbol has been shown so far.

    ## Description
    A shuffled pack of K symbols, `copies` of each, is shown card by card. Beside each card another
    symbol is asked for, from a second shuffled pack, and the agent says how many of its copies have
    been shown, the present card included. The task of POPGym (arXiv 2303.01859), in which the last
    card is not asked about and a count of `copies` cannot be answered.

    ## Action Space
    `Discrete(copies + 1)`: the count.

    ## Observation Space
    `MultiDiscrete([K, K])`: the symbol shown and the symbol asked for. The observation after the
    last answer repeats the last card.

    ## Rewards
    `+1/T` for a right answer and `-1/T` for a wrong one, T = K * copies: returns lie between -1
    and 1. Without memory a right answer has at best the probability
    `(1 / copies + (K - 1) / (copies + 1)) / K`; with memory the return is 1. `info` holds what the
    agent must not see: `answer`, the right action of the next step, `t`, `instance_seed`,
    `instance_index`.

    ## Starting State
    `reset(seed=s)` begins instance (s, 0), `reset(seed=s, options={"index": i})` instance (s, i),
    and each later `reset()` the next index.

    ## Episode End
    Terminates after the whole pack. Never truncates.

    ## Arguments
    `K` (2), `copies` (26). POPGym's easy, medium and hard tasks have (K, copies) = (2, 26), (4, 26)
    and (13, 16).

    ## Vector Version
    `CountRecallVectorEnv`: row n seeded s plays what this environment seeded s plays.

    ## Version History
    * v0: first version.
    """

    Config: ClassVar[type[ScriptOptions]] = CountRecallOptions


class CountRecallVectorEnv(ScriptVectorEnv):
    """N times CountRecall; see `CountRecallEnv` for the task and its arguments."""

    Config: ClassVar[type[ScriptOptions]] = CountRecallOptions
