"""What every registered agent offers, whoever trains it."""

import inspect
from typing import Any

import gymnasium
import numpy as np
import pytest

from palaestra.agents.base import Actor, Agent, Learner
from palaestra.agents.loop import Loop
from palaestra.agents.setup import Setup
from palaestra.envs import make_vec
from palaestra.experience.artifact import Matrix, Table, Text
from palaestra.experience.state import State
from palaestra.policies import PolicySpec
from palaestra.registry import registry

AGENTS = list(registry.entries("agent"))
CONTEXT = gymnasium.spaces.Box(0, 1, (2 + 5 + 2,), np.float32)
"""Two features, then what an observation of five arms holds."""
BOARD = ("minimax", "mcts", "q-learning")


def agent_of(name: str) -> Agent:
    """Return an agent with its defaults for an environment that it can play."""
    env = make_vec("palaestra/TicTacToe-v0" if name in BOARD else "palaestra/BernoulliBandit-v0", 1)
    env.close()
    observation_space = CONTEXT if name == "lin-ucb" else env.single_observation_space
    cls = registry.get("agent", name)
    policy = PolicySpec("mlp") if cls.needs_policy else None
    setup = Setup(observation_space, env.single_action_space, policy, total_steps=1000)
    return cls(cls.Config(), setup)


@pytest.mark.parametrize("name", AGENTS)
def test_an_actor_is_told_which_of_how_many_it_is(name: str) -> None:
    actor = agent_of(name).make_actor(worker=1, workers=3)
    assert isinstance(actor, Actor)
    assert list(inspect.signature(actor.load_weights).parameters)[:2] == ["weights", "version"]


@pytest.mark.parametrize("name", AGENTS)
def test_looking_ahead_gives_columns_of_rows(name: str) -> None:
    agent = agent_of(name)
    actor, space = agent.make_actor(), agent.setup.observation_space
    observation: Any = space.sample()
    if isinstance(observation, dict):
        rows: Any = {key: np.stack([value] * 3) for key, value in observation.items()}
    else:
        rows = np.stack([observation] * 3)
    extras = actor.look_ahead(rows, actor.initial_state(3), np.ones(3, bool))
    assert all(len(column) == 3 for column in extras.values())


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_opens_and_closes_whatever_it_holds(name: str) -> None:
    agent = agent_of(name)
    agent.open()
    agent.close()
    assert isinstance(agent.infos, tuple)


class Nothing(Learner):
    """A learner that says no more than it must."""

    def update(self, fragments: Any) -> dict[str, float]:
        return {}

    def weights(self) -> dict[str, np.ndarray]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def test_a_learner_without_networks_has_neither_probe_nor_artifacts() -> None:
    assert Nothing().probe() is None
    assert Nothing().artifacts() == {}


def test_an_actor_without_a_value_says_nothing_ahead() -> None:
    actor = agent_of("random").make_actor()
    assert actor.look_ahead(np.zeros((2, 3)), State(), np.zeros(2, bool)) == {}


def test_a_loop_resumes_exactly_unless_it_says_otherwise() -> None:
    assert Loop.exact


def test_artifacts_are_matrices_tables_and_texts() -> None:
    matrix = Matrix(np.eye(2), ("a", "b"), ("c", "d"), "similarity")
    table = Table({"arm": np.array(["a", "b"]), "pulls": np.array([3, 4])}, "arms")
    assert (matrix.title, table.title, Text("moved left").title) == ("similarity", "arms", "")
    assert Matrix(np.eye(2)).rows == ()
