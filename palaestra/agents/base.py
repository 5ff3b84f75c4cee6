"""The two halves of an agent: an actor that can be sent away and a learner that stays.

    actor, learner = agent.make_actor(), agent.make_learner()
    state = actor.initial_state(num_envs)
    action, state, extras = actor.act(observation, state, reset, rng, "sample")
    ...
    metrics = learner.update([fragment])
    actor.load_weights(learner.weights())

A baseline, such as UCB, has no learner.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import gymnasium
import numpy as np

from palaestra.agents.loop import Loop, TrainingEnvs
from palaestra.agents.probe import Probe
from palaestra.agents.setup import Setup
from palaestra.experience.artifact import Artifact
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
        """Return what the learner wants of states in which nobody acts: a value, say, `[N, ...]`.

        They are the final observations of episodes that were cut, and what follows the last entry
        of a fragment's row. No action is chosen, nothing is drawn and no state changes.
        """
        return {}

    def load_weights(self, weights: Weights, version: int = 0) -> None:
        """Take over the learner's weights; an actor without a learner has none.

        Args:
          weights: what `Learner.weights` gave.
          version: which weights of the run they are, from 0.
        """


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
        """Return all that decides what follows: dicts of arrays, tensors, numbers, strings."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""

    def probe(self) -> Probe | None:
        """Return what diagnostics may look into, or None where there are no networks."""
        return None

    def artifacts(self) -> dict[str, Artifact]:
        """Return matrices, tables and texts to keep with a checkpoint, by name."""
        return {}


class Agent(ABC):
    """A learning rule by name; a subclass is registered under the kind "agent".

    Args:
      config: an instance of `Config`.
      setup: what the agent is built for.

    Raises:
      UserError: spaces that the agent cannot take.
    """

    Config: ClassVar[type[Options]] = Options
    needs_policy: ClassVar[bool] = False
    infos: ClassVar[tuple[str, ...]] = ()
    """Names of the step infos that its fragments hold, where the environment tells them."""

    def __init__(self, config: Any, setup: Setup) -> None:
        self.config = config
        self.setup = setup

    @abstractmethod
    def make_actor(self, worker: int = 0, workers: int = 1) -> Actor:
        """Return an actor with the initial weights.

        Args:
          worker: which of the run's actors it is, from 0, where they differ (in exploration, say).
          workers: how many actors there are.
        """

    def make_learner(self) -> Learner | None:
        """Return the learner, or None for an agent that does not learn."""
        return None

    def make_loop(self, envs: TrainingEnvs) -> Loop | None:
        """Return the agent's own training loop, or None where rollouts feed the learner.

        Raises:
          UserError: environments that the loop cannot train on.
        """
        return None

    def open(self) -> None:
        """Start services that live as long as the run, before its actors and learner are made."""

    def close(self) -> None:
        """End what `open` started; called once, also after an error."""


def build(name: str, setup: Setup, options: Mapping[str, Any]) -> Agent:
    """Build an agent by its registered name.

    Raises:
      UserError: unknown name or option, or spaces that the agent cannot take.
    """
    cls = registry.get("agent", name)
    result: Agent = cls(validate(cls.Config, options, "agent"), setup)
    return result


def make(
    name: str,
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    *,
    policy: Any = None,
    seed: int = 0,
    total_steps: int = 0,
    **options: Any,
) -> Agent:
    """Build an agent for spaces; see `build` and `Setup`."""
    setup = Setup(observation_space, action_space, policy, seed, total_steps)
    return build(name, setup, options)
