"""The actor of every agent whose behaviour is a torch policy."""

from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from palaestra.agents.base import Actor, Mode, Step
from palaestra.experience.fragment import Tree, map_tree
from palaestra.experience.state import State
from palaestra.experience.weights import Weights
from palaestra.policies.base import Policy, PolicyOutput, PolicySpec


class PolicyActor(Actor):
    """Samples from a policy and notes `log_prob` and `value` of each step.

    Args:
      spec: the policy by name and options.
      observation_space, action_space: of one environment.
      seed: decides the initial weights.
      device: where the policy acts; states are tensors there, actions and extras arrays.
    """

    def __init__(
        self,
        spec: PolicySpec,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        seed: int,
        device: str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        policy = spec.build(observation_space, action_space, seed)
        self.policy = policy.requires_grad_(False).eval().to(self.device)

    def initial_state(self, batch: int) -> State:
        """Return the policy's initial state."""
        return self.policy.initial_state(batch)

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
            output, state = self._read(observation, state, reset)
            distribution = output.distribution
            action = distribution.sample(rng) if mode == "sample" else distribution.mode()
            extras = {
                "log_prob": distribution.log_prob(action).numpy(force=True),
                "value": output.value.numpy(force=True),
            }
            return action.numpy(force=True), state, extras

    def look_ahead(
        self, observation: Tree, state: State, reset: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return the value of each row, `[N]`, without choosing an action."""
        with torch.inference_mode():
            return {"value": self._read(observation, state, reset)[0].value.numpy(force=True)}

    def _read(
        self, observation: Tree, state: State, reset: np.ndarray
    ) -> tuple[PolicyOutput, State]:
        tensors = map_tree(self._tensor, observation)
        return self.policy.step(tensors, state, self._tensor(reset))

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def load_weights(self, weights: Weights, version: int = 0) -> None:
        """Copy the learner's parameters and buffers into the policy."""
        load_weights(self.policy, weights)


def load_weights(policy: Policy, weights: Weights) -> None:
    """Copy parameters and buffers into `policy`; names must be those of its `state_dict`."""
    # A copy first: arrays that came through Ray are not writable, which torch warns about.
    policy.load_state_dict({name: torch.from_numpy(x.copy()) for name, x in weights.items()})
