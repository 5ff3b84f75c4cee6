"""Actors with the networks of Stable-Baselines3, drawing from a generator that is given."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    MultiCategoricalDistribution,
)
from torch import Tensor

from palaestra.agents.base import Actor, Mode, Step
from palaestra.agents.sb3 import state as state_of
from palaestra.experience.fragment import Tree
from palaestra.experience.state import State
from palaestra.experience.weights import Weights
from palaestra.policies.distributions import Categorical, DiagonalGaussian


class SB3Actor(Actor):
    """Acts as a network of Stable-Baselines3 would.

    Args:
      network: its policy, or the part of it that chooses actions.
    """

    def __init__(self, network: Any) -> None:
        self.network = network.requires_grad_(False)
        self.network.set_training_mode(False)

    def initial_state(self, batch: int) -> State:
        """Return a state without content: the network has no memory."""
        return State()

    def act(
        self,
        observation: Tree,
        state: State,
        reset: np.ndarray,
        rng: np.random.Generator,
        mode: Mode,
    ) -> Step:
        """Choose actions; see `Actor.act`."""
        with torch.inference_mode():
            x, _ = self.network.obs_to_tensor(observation)
            action, state = self._choose(x, state, reset, rng, mode)
        return action, state, {}

    @abstractmethod
    def _choose(
        self, x: Any, state: State, reset: np.ndarray, rng: np.random.Generator, mode: Mode
    ) -> tuple[np.ndarray, State]:
        """Return actions and next state for an observation as tensors."""

    def load_weights(self, weights: Weights, version: int = 0) -> None:
        """Copy the learner's parameters and buffers into the network."""
        state_of.load_weights(self.network, weights)


class ValueActor(SB3Actor):
    """Takes the action of the highest value; in sample mode a random one with small probability.

    Args:
      network: from observations to action values.
      epsilon: that probability, for each row by itself.
    """

    def __init__(self, network: Any, epsilon: float) -> None:
        super().__init__(network)
        self.epsilon = epsilon

    def _choose(
        self, x: Any, state: State, reset: np.ndarray, rng: np.random.Generator, mode: Mode
    ) -> tuple[np.ndarray, State]:
        action = self.network._predict(x).numpy()
        if mode == "sample":
            explores = rng.random(len(action)) < self.epsilon
            anything = rng.integers(self.network.action_space.n, size=len(action))
            action = np.where(explores, anything, action)
        return action, state


class PolicyActor(SB3Actor):
    """Draws from the policy's distribution, or takes its mode."""

    def _choose(
        self, x: Any, state: State, reset: np.ndarray, rng: np.random.Generator, mode: Mode
    ) -> tuple[np.ndarray, State]:
        distribution = self.network.get_distribution(x)
        return choose(distribution, self.network.action_space, rng, mode), state


@dataclass
class LSTMState(State):
    """Hidden and cell state of the policy's LSTM, `[B, layers, width]`."""

    hidden: Tensor
    cell: Tensor


class RecurrentActor(SB3Actor):
    """`PolicyActor` for a policy with an LSTM."""

    def initial_state(self, batch: int) -> State:
        """Return zeros."""
        layers, _, width = self.network.lstm_hidden_state_shape
        return LSTMState(torch.zeros(batch, layers, width), torch.zeros(batch, layers, width))

    def _choose(
        self, x: Any, state: Any, reset: np.ndarray, rng: np.random.Generator, mode: Mode
    ) -> tuple[np.ndarray, State]:
        before = tuple(part.transpose(0, 1).contiguous() for part in (state.hidden, state.cell))
        starts = torch.from_numpy(reset).float()
        distribution, after = self.network.get_distribution(x, before, starts)
        hidden, cell = (part.transpose(0, 1) for part in after)
        return choose(distribution, self.network.action_space, rng, mode), LSTMState(hidden, cell)


def choose(
    distribution: Any, action_space: gymnasium.Space[Any], rng: np.random.Generator, mode: Mode
) -> np.ndarray:
    """Return one action for each row of a distribution of Stable-Baselines3, drawn with `rng`."""
    action = distribution.mode() if mode == "greedy" else _sample(distribution, rng)
    return action.numpy().astype(action_space.dtype).reshape(-1, *(action_space.shape or ()))


def _sample(distribution: Any, rng: np.random.Generator) -> Tensor:
    inner = distribution.distribution
    if isinstance(distribution, CategoricalDistribution):
        return Categorical(inner.logits).sample(rng)
    if isinstance(distribution, MultiCategoricalDistribution):
        return torch.stack([Categorical(part.logits).sample(rng) for part in inner], -1)
    if isinstance(distribution, BernoulliDistribution):
        result: Tensor = torch.from_numpy(rng.random(inner.probs.shape)) < inner.probs
        return result
    return DiagonalGaussian(inner.mean, inner.stddev[0].log()).sample(rng)
