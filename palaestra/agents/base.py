"""The two halves of an agent: an actor that can be sent away and a learner that stays.

    actor, learner = agent.make_actor(), agent.make_learner()
    state = actor.initial_state(num_envs)
    action, state, extras = actor.act(observation, state, reset, rng, "sample")
    ...
    metrics = learner.update([fragment])
    actor.load_weights(learner.weights())

A rule without learning, such as UCB, has no learner.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import gymnasium
import numpy as np

from palaestra.agents.loop import Loop, TrainingEnvs
from palaestra.agents.setup import Setup
from palaestra.experience.fragment import Fragment, Tree
from palaestra.experience.state import State
from palaestra.experience.weights import Weights
from palaestra.options import Options, validate
from palaestra.registry import registry

Mode = Literal["sample", "greedy"]
"""How an action is taken from what the actor believes; part of every reported result."""


Step = tuple[np.ndarray, State, dict[str, np.ndarray]]
"""Action `[N, ...]`, next state, extras `[N, ...]`."""


class Actor(ABC):
    """Acts for N environments at once: cheap, picklable, without an optimiser."""

    @abstractmethod
    def initial_state(self, batch: int) -> State:
        """Return what the actor remembers before the first step of `batch` environments."""

    @abstractmethod
    def act(
        self,
        observation: Tree,
        state: State,
        reset: np.ndarray,
        rng: np.random.Generator,
        mode: Mode,
    ) -> Step:
        """Choose one action for each row: those of the environments that decide now.

        Args:
          observation: `[N, ...]`, or a dict of such arrays. A Dict observation may hold
            `action_mask [N, A]`, true where the action is legal.
          state: what the last call returned, or `initial_state(N)`; it is not changed in place.
          reset: bool `[N]`; a true row starts a new episode, whatever its state holds.
          rng: the only source of randomness. "greedy" draws from it at most to break ties.
          mode: "sample" or "greedy".
        """

    def look_ahead(
        self, observation: Tree, state: State, reset: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return what the learner wants of states in which nobody acts, as a value, `[N, ...]`.

        It takes what `act` takes; nothing is drawn, and the state stays as it is.
        """
        return {}

    def load_weights(self, weights: Weights, version: int = 0) -> None:
        """Take over the learner's weights, its `version`-th; without a learner there are none."""


class Learner(ABC):
    """Turns fragments into better weights."""

    @abstractmethod
    def update(self, fragments: Sequence[Fragment]) -> dict[str, float]:
        """Learn from fragments and return the metrics of the update, e.g. "train/value_loss"."""

    @abstractmethod
    def weights(self) -> Weights:
        """Return what an actor needs to act as the learner now would."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on: nested dicts of arrays, tensors, numbers, strings."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""


class Agent(ABC):
    """A learning rule by name; a subclass is registered under the kind "agent".

    Args:
      config: an instance of `Config`.
      setup: what the agent is built for.

    Raises:
      UserError: spaces that the agent cannot take.
    """

    Config: ClassVar[type[Options]] = Options
    infos: ClassVar[tuple[str, ...]] = ()
    """Step infos that the agent's fragments hold, by name."""
    needs_policy: ClassVar[bool] = False

    def __init__(self, config: Any, setup: Setup) -> None:
        self.config = config
        self.setup = setup

    @abstractmethod
    def make_actor(self) -> Actor:
        """Return an actor with the initial weights."""

    def make_learner(self) -> Learner | None:
        """Return the learner, or None for a rule that does not learn."""
        return None

    def make_loop(self, task: TrainingEnvs) -> Loop | None:
        """Return the agent's own training loop, or None where rollouts feed the learner.

        Raises:
          UserError: environments that the loop cannot train on.
        """
        return None


def build(name: str, setup: Setup, options: Mapping[str, Any]) -> Agent:
    """Build an agent by its registered name.

    Raises:
      UserError: unknown name or option, or spaces that the agent cannot take.
    """
    cls = registry.get("agent", name)
    return cls(validate(cls.Config, options, "agent"), setup)


def make(
    name: str,
    observation_space: gymnasium.Space,
    action_space: gymnasium.Space,
    *,
    policy: Any = None,
    seed: int = 0,
    total_steps: int = 0,
    **options: Any,
) -> Agent:
    """Build an agent for spaces; see `build` and `Setup`."""
    setup = Setup(observation_space, action_space, policy, seed, total_steps)
    return build(name, setup, options)
