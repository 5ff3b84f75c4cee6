"""What the options of every memory environment say: its spaces."""

from abc import abstractmethod

from gymnasium.spaces import Discrete, MultiDiscrete

from palaestra.options import Options


class MemoryOptions(Options):
    """Options of a memory environment."""

    @property
    @abstractmethod
    def observation_space(self) -> Discrete | MultiDiscrete:
        """Return the space of the observations of one row."""

    @property
    @abstractmethod
    def action_space(self) -> Discrete:
        """Return the space of the actions of one row."""
