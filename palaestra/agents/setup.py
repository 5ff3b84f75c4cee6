"""Setup: what an agent is built for."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium

if TYPE_CHECKING:
    from palaestra.policies.base import PolicySpec


@dataclass(frozen=True)
class Setup:
    """What an agent is built for, beside its own options.

    Attributes:
      observation_space, action_space: of one environment.
      policy: name and options of the policy, for agents whose `needs_policy` is true.
      seed: the user's seed; initial weights and minibatch order come from its streams.
      total_steps: agent steps of the whole run, for schedules; 0 if it has no end.
      device: where the learner's networks live, as torch names it: "cpu", "cuda", "cuda:1".
      run_id: of the run that the agent trains in, for services that keep files; "" outside one.
    """

    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]
    policy: "PolicySpec | None" = None
    seed: int = 0
    total_steps: int = 0
    device: str = "cpu"
    run_id: str = ""
