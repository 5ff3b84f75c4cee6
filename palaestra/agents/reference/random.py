"""Uniform play on any action space."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from palaestra.agents.base import Actor, Agent, Mode, Step
from palaestra.agents.setup import Setup
from palaestra.errors import UserError
from palaestra.experience.fragment import Tree
from palaestra.experience.state import State


class _RandomActor(Actor):
    def __init__(self, action_space: gymnasium.Space[Any]) -> None:
        self.action_space = action_space

    def initial_state(self, batch: int) -> State:
        return State()

    def act(
        self,
        observation: Tree,
        state: State,
        reset: np.ndarray,
        rng: np.random.Generator,
        mode: Mode,
    ) -> Step:
        mask = observation.get("action_mask") if isinstance(observation, dict) else None
        space, N = self.action_space, len(reset)
        if isinstance(space, spaces.Box):
            return _uniform_box(space, N, rng), state, {}
        if isinstance(space, spaces.Discrete):
            return space.start + _uniform_legal(int(space.n), N, mask, rng), state, {}
        assert isinstance(space, spaces.MultiDiscrete)
        return space.start + _uniform_multi(space.nvec, N, mask, rng), state, {}


def _uniform_legal(n: int, N: int, mask: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    if mask is None:
        return rng.integers(n, size=N)
    result: np.ndarray = np.where(mask, rng.random((N, n)), -1.0).argmax(1)
    return result


def _uniform_multi(
    nvec: np.ndarray, N: int, mask: np.ndarray | None, rng: np.random.Generator
) -> np.ndarray:
    sizes = nvec.ravel()
    parts = [None] * len(sizes) if mask is None else np.split(mask, sizes.cumsum()[:-1], axis=1)
    columns = [_uniform_legal(int(n), N, part, rng) for n, part in zip(sizes, parts, strict=True)]
    return np.stack(columns, axis=1).reshape(N, *nvec.shape)


def _uniform_box(space: spaces.Box, N: int, rng: np.random.Generator) -> np.ndarray:
    """Uniform between bounds; beyond a missing bound exponential, without any bound normal."""
    shape = (N, *space.shape)
    below, above = space.bounded_below, space.bounded_above
    whole = np.issubdtype(space.dtype, np.integer)
    low = np.where(below, space.low, 0).astype(np.float64)
    high = np.where(above, space.high, 0).astype(np.float64) + whole
    free = np.where(below, low + rng.exponential(size=shape), high - rng.exponential(size=shape))
    free = np.where(below | above, free, rng.normal(size=shape))
    drawn = np.where(below & above, low + (high - low) * rng.random(shape), free)
    drawn = np.floor(drawn) if whole else drawn
    return np.clip(drawn.astype(space.dtype), space.low, space.high)


class Random(Agent):
    """Uniform play on any Discrete, MultiDiscrete or Box action space; the floor of every task.

    Where the observation holds an `action_mask` (for MultiDiscrete the masks of its components, one
    after the other), only legal actions are drawn. "greedy" is the same: all actions tie.

    Raises:
      UserError: another action space.
    """

    def __init__(self, config: Any, setup: Setup) -> None:
        super().__init__(config, setup)
        action_space = setup.action_space
        if not isinstance(action_space, spaces.Discrete | spaces.MultiDiscrete | spaces.Box):
            raise UserError(
                f"random: action space {action_space}: Discrete, MultiDiscrete or Box is accepted."
            )

    def make_actor(self, worker: int = 0, workers: int = 1) -> Actor:
        """Return the actor."""
        return _RandomActor(self.setup.action_space)
