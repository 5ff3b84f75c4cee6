"""Actors to evaluate: of baselines, and of runs with the weights of a checkpoint."""

from typing import Any

import gymnasium
from gymnasium import spaces

from palaestra.agents.base import Actor, Agent
from palaestra.agents.base import make as make_agent
from palaestra.envs.wrappers.statistics import Statistics
from palaestra.errors import UserError
from palaestra.experience.weights import Weights
from palaestra.registry import registry
from palaestra.runs.config import import_plugins
from palaestra.runs.rollouts.build import build_agent, environment_spaces
from palaestra.runs.rollouts.statistics import unpack
from palaestra.runs.store.checkpoints import Checkpoints
from palaestra.runs.store.folder import RunFolder
from palaestra.runs.store.record import RunRecord


class BaselineActors:
    """Makes actors of a baseline for whatever spaces a task has.

    Raises:
      UserError: the name is an agent that has to be trained first.
    """

    def __init__(self, name: str, options: dict[str, Any] | None = None) -> None:
        self.name, self.options = name, options or {}
        cls = registry.get("agent", name)
        if (cls.make_learner, cls.make_loop) != (Agent.make_learner, Agent.make_loop):
            raise UserError(
                f"agent {name!r} has to be trained first: `palaestra train PRESET`, "
                "then evaluate the run."
            )

    def __call__(self, observation_space: Any, action_space: Any) -> Actor:
        """Return an actor for these spaces."""
        agent = make_agent(self.name, observation_space, action_space, **self.options)
        return agent.make_actor()


class RunActors:
    """Makes actors with the weights of a run's checkpoint.

    Args:
      folder: the run.
      checkpoint: name of the checkpoint, or "best"; None means the last one.
      now: weights, as a checkpoint holds them, and agent steps of a run in progress, instead of a
        checkpoint.

    Attributes:
      agent: what the trained agent is called in tables.
      config: of the run.
      step: agent steps at which the checkpoint was made.
      weights: what the actors act with.
      statistics: what normalising wrappers had gathered.

    Raises:
      UserError: no such checkpoint, or it is broken; those that are whole are named.
    """

    record: RunRecord | None = None
    """The run that the actors are of; None where there is an export alone."""

    statistics: dict[str, Statistics]

    def __init__(
        self,
        folder: RunFolder,
        checkpoint: str | None = None,
        *,
        now: tuple[Weights, int] | None = None,
    ) -> None:
        self.record = RunRecord(folder.path)
        self.agent = self.record.agent
        self.config = folder.config()
        import_plugins(self.config.plugins)
        self.spaces = environment_spaces(self.config)
        if now is None:
            store = Checkpoints(folder.checkpoints)
            now = store.read(checkpoint, ("actor",))["actor"], store.step(checkpoint)
        packed, self.step = now
        self.weights, self.statistics = unpack(packed)

    def __call__(self, observation_space: Any, action_space: Any) -> Actor:
        """Return the trained actor; raises `UserError` for spaces it was not trained on."""
        given = (observation_space, action_space)
        if not all(same_layout(*pair) for pair in zip(given, self.spaces, strict=True)):
            trained = f"{self.spaces[0]} and {self.spaces[1]}"
            raise UserError(f"trained on {trained}, not on {observation_space} and {action_space}")
        actor = build_agent(self.config, observation_space, action_space).make_actor()
        actor.load_weights(self.weights)
        return actor


def same_layout(one: gymnasium.Space[Any], other: gymnasium.Space[Any]) -> bool:
    """Whether a policy for one space can read the other: equal but for the bounds of a Box."""
    if isinstance(one, spaces.Dict) and isinstance(other, spaces.Dict):
        return one.keys() == other.keys() and all(same_layout(one[k], other[k]) for k in one)
    if isinstance(one, spaces.Box) and isinstance(other, spaces.Box):
        return one.shape == other.shape and one.dtype == other.dtype
    return bool(one == other)
