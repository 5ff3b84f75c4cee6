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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import gymnasium
import numpy as np

from palaestra.agents.fragment import Fragment, Tree
from palaestra.options import Options, validate
from palaestra.policies.state import State
from palaestra.registry import registry

if TYPE_CHECKING:
    from palaestra.agents.loop import Loop

Mode = Literal["sample", "greedy"]
"""How an action is taken from what the actor believes; part of every reported result."""

Weights = dict[str, np.ndarray]
"""Named arrays, as `Learner.weights` gives and `Actor.load_weights` takes them."""


@dataclass(frozen=True)
class TrainingTask:
    """The environments that an agent with a loop of its own trains on."""

    env_id: str
    num_envs: int
    wrappers: tuple[str | Mapping[str, Any], ...]
    """Wrappers by name, or `{"name": ..., option: ...}`, innermost first."""
    options: Mapping[str, Any]
    """Keyword arguments of the environment."""
    steps: int
    """Steps of every environment in one round, where the algorithm leaves it open."""


Step = tuple[np.ndarray, State, dict[str, np.ndarray]]
"""Action `[N, ...]`, next state, extras `[N, ...]`."""


class Actor(ABC):
    """Acts for N environments at once: cheap, picklable, without an optimiser."""

    bootstraps: ClassVar[bool] = False
    """Whether the learner wants this actor's extras at final and last observations."""

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
        """Choose one action for each row.

        Args:
          observation: `[N, ...]`, or a dict of such arrays. A Dict observation may hold
            `action_mask [N, A]`, true where the action is legal.
          state: what the last call returned, or `initial_state(N)`; it is not changed in place.
          reset: bool `[N]`; a true row starts a new episode, whatever its state holds.
          rng: the only source of randomness. "greedy" draws from it at most to break ties.
          mode: "sample" or "greedy".
        """

    def load_weights(self, weights: Weights) -> None:
        """Take over the learner's weights; an actor without a learner has none."""


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
      observation_space, action_space: of one environment.
      config: an instance of `Config`.
      policy: name and options of the policy, for agents whose `needs_policy` is true.
      seed: the user's seed; initial weights and minibatch order come from its streams.
      total_steps: agent steps of the whole run, for schedules; 0 if it has no end.

    Raises:
      UserError: spaces that the agent cannot take.
    """

    Config: ClassVar[type[Options]] = Options
    needs_policy: ClassVar[bool] = False

    def __init__(
        self,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        config: Any,
        policy: Any = None,
        seed: int = 0,
        total_steps: int = 0,
    ) -> None:
        self.observation_space = observation_space
        self.action_space = action_space
        self.config = config
        self.policy = policy
        self.seed = seed
        self.total_steps = total_steps

    @abstractmethod
    def make_actor(self) -> Actor:
        """Return an actor with the initial weights."""

    def make_learner(self) -> Learner | None:
        """Return the learner, or None for a rule that does not learn."""
        return None

    def make_loop(self, task: "TrainingTask") -> "Loop | None":
        """Return the agent's own training loop, or None where rollouts feed the learner.

        Raises:
          UserError: environments that the loop cannot train on.
        """
        return None


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
    """Build an agent by its registered name.

    Raises:
      UserError: unknown name or option, or spaces that the agent cannot take.
    """
    cls = registry.get("agent", name)
    config = validate(cls.Config, options, "agent")
    return cls(observation_space, action_space, config, policy, seed, total_steps)
