"""Recall: name the cue that was shown before a long wait."""

from typing import ClassVar

import numpy as np
from gymnasium.spaces import Discrete, MultiDiscrete
from pydantic import Field

from palaestra.envs import noise
from palaestra.envs.memory.script import MAX_SYMBOLS, ScriptEnv, ScriptOptions, ScriptVectorEnv

CUE, WAIT, QUESTION = range(3)
"""What a step is, the first part of an observation."""

_CUES, _DISTRACTORS = np.uint64(0), np.uint64(1)


class RecallOptions(ScriptOptions):
    """Options of Recall."""

    K: int = Field(4, ge=2, lt=MAX_SYMBOLS, description="Number of cues.")
    gap: int = Field(64, ge=0, description="Steps between the cue and the question.")
    distractors: bool = Field(
        True, description="Random cues are shown during the wait, and not a blank."
    )

    @property
    def observation_space(self) -> MultiDiscrete:
        """Return the space of the observations of one row."""
        return MultiDiscrete([3, self.K + 1])

    @property
    def action_space(self) -> Discrete:
        """Return the space of the actions of one row."""
        return Discrete(self.K)

    @property
    def steps(self) -> int:
        """Return the length of an episode: cue, wait, question."""
        return self.gap + 2

    @property
    def rewards(self) -> tuple[float, float]:
        """Return what a right and a wrong answer pay."""
        return 1.0, 0.0

    def write(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return observations int16 `[M, T + 1, 2]` and answers int16 `[M, T]`."""
        M, K, gap = len(keys), self.K, self.gap
        cues = noise.integer(noise.bits(noise.bits(keys, _CUES), np.uint64(0)), K)
        observations = np.full((M, gap + 3, 2), K, np.int16)
        observations[:, 0, 0], observations[:, 0, 1] = CUE, cues
        observations[:, 1 : gap + 1, 0] = WAIT
        observations[:, gap + 1 :, 0] = QUESTION
        if self.distractors:
            number = np.arange(gap, dtype=np.uint64)
            bits = noise.bits(noise.bits(keys, _DISTRACTORS)[:, None], number)
            observations[:, 1 : gap + 1, 1] = noise.integer(bits, K)
        answers = np.full((M, gap + 2), -1, np.int16)
        answers[:, -1] = cues
        return observations, answers


class RecallEnv(ScriptEnv):
    """Name the cue that was shown at the beginning.

    ## Description
    The first step shows one of K cues, drawn uniformly. Then `gap` steps pass, which show other
    cues at random (`distractors`) or nothing. The last step asks for the first cue. An episode is
    `gap + 2` steps long and holds one bit of information for every doubling of K: the smallest
    task of long-term memory.

    ## Action Space
    `Discrete(K)`: the cue to name. Only the answer to the question counts.

    ## Observation Space
    `MultiDiscrete([3, K + 1])`: what the step is (0 cue, 1 wait, 2 question), and the cue shown, K
    for none.

    ## Rewards
    1 for the right answer to the question, otherwise 0. Without memory 1/K at best, which is
    chance; with memory 1. `info` holds what the agent must not see: `answer`, the right action of
    the next step (-1 where nothing is asked), `t`, `instance_seed`, `instance_index`.

    ## Starting State
    `reset(seed=s)` begins instance (s, 0), `reset(seed=s, options={"index": i})` instance (s, i),
    and each later `reset()` the next index.

    ## Episode End
    Terminates with the answer. Never truncates.

    ## Arguments
    `K` (4), `gap` (64), `distractors` (true).

    ## Vector Version
    `RecallVectorEnv`: row n seeded s plays what this environment seeded s plays.

    ## Version History
    * v0: first version.
    """

    Config: ClassVar[type[ScriptOptions]] = RecallOptions


class RecallVectorEnv(ScriptVectorEnv):
    """N times Recall; see `RecallEnv` for the task and its arguments."""

    Config: ClassVar[type[ScriptOptions]] = RecallOptions
