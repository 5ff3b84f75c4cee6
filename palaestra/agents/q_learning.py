"""Tabular Q-learning (Watkins, 1989) for discrete observations, with or without an action mask."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from pydantic import Field

from palaestra.agents.base import Actor, Agent, Learner, Mode, Step
from palaestra.agents.setup import Setup
from palaestra.errors import UserError
from palaestra.experience.fragment import Fragment, Tree, map_tree
from palaestra.experience.state import State
from palaestra.experience.weights import Weights
from palaestra.options import Options

MAX_ENTRIES = 50_000_000
"""Largest table, 400 MB of float64."""


class StateIndex:
    """Numbers the observations of a space: mixed radix, the first component runs fastest.

    Args:
      space: Discrete, MultiDiscrete, or a Dict of one of them as "observation" and "action_mask".
      num_actions: actions of the agent.

    Raises:
      UserError: another space, or one whose table would be too large.
    """

    def __init__(self, space: gymnasium.Space[Any], num_actions: int) -> None:
        inner = space["observation"] if isinstance(space, spaces.Dict) else space
        if isinstance(inner, spaces.Discrete):
            sizes, start = np.array([inner.n]), np.array([inner.start])
        elif isinstance(inner, spaces.MultiDiscrete) and inner.nvec.ndim == 1:
            sizes, start = inner.nvec.astype(np.int64), inner.start.astype(np.int64)
        else:
            raise UserError(
                f"q-learning: observation space {inner}: Discrete, flat MultiDiscrete, or a Dict "
                "of one of them ('observation') with an 'action_mask' is accepted."
            )
        # Python integers, because the product may overflow.
        self.size = int(np.prod(sizes.astype(object)))
        if self.size * num_actions > MAX_ENTRIES:
            raise UserError(
                f"q-learning: {inner} with {num_actions} actions needs a table of "
                f"{self.size * num_actions:.3g} entries; up to {MAX_ENTRIES} are accepted."
            )
        self.start, self.num_actions = start, num_actions
        self.radix = np.concatenate([[1], sizes[:-1]]).cumprod()
        self.width = None if isinstance(inner, spaces.Discrete) else len(sizes)

    def __call__(self, observation: Tree) -> np.ndarray:
        """Return the state numbers of observations with leading axes `[...]`, int64 `[...]`."""
        values = observation["observation"] if isinstance(observation, dict) else observation
        components = values[..., None] if self.width is None else values
        result: np.ndarray = (components.astype(np.int64) - self.start) @ self.radix
        return result

    def legal(self, observation: Tree) -> np.ndarray:
        """Return the legal actions, bool `[..., A]`; all of them without a mask."""
        if isinstance(observation, dict):
            result: np.ndarray = observation["action_mask"].astype(bool)
            return result
        shape = observation.shape if self.width is None else observation.shape[:-1]
        return np.ones((*shape, self.num_actions), bool)


class QActor(Actor):
    """Epsilon-greedy in "sample" mode, greedy with uniform ties in "greedy" mode."""

    def __init__(self, index: StateIndex, q: np.ndarray, epsilon: float, start: int) -> None:
        self.index, self.q, self.epsilon, self.start = index, q, epsilon, start

    def initial_state(self, batch: int) -> State:
        """Return the empty state."""
        return State()

    def act(
        self,
        observation: Tree,
        state: State,
        reset: np.ndarray,
        rng: np.random.Generator,
        mode: Mode,
    ) -> Step:
        """Choose one legal action for each row."""
        legal = self.index.legal(observation)
        q = np.where(legal, self.q[self.index(observation)], -np.inf)
        candidates = legal & (q == q.max(axis=1, keepdims=True))
        if mode == "sample":
            explore = rng.random(len(q)) < self.epsilon
            candidates = np.where(explore[:, None], legal, candidates)
        return _uniform(candidates, rng) + self.start, state, {}

    def load_weights(self, weights: Weights, version: int = 0) -> None:
        """Take over the table."""
        self.q = weights["q"]


def _uniform(candidates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose uniformly among the true entries of each row, int64 `[N]`."""
    rank = rng.integers(candidates.sum(axis=1))
    result: np.ndarray = (candidates.cumsum(axis=1) > rank[:, None]).argmax(axis=1)
    return result


class QLearner(Learner):
    """Q(s, a) += alpha (r + gamma^duration max_a' Q(s', a') - Q(s, a)), over legal a' alone.

    Steps are learned from last to first, so that a final reward reaches the opening within one
    fragment. The N transitions of one step read the same table; where several share (s, a), the
    result is that of applying them one after the other in row order.
    """

    def __init__(self, index: StateIndex, config: "QLearning.Config", start: int) -> None:
        self.index, self.config, self.start = index, config, start
        self.q = np.zeros((index.size, index.num_actions))

    def update(self, fragments: Sequence[Fragment]) -> dict[str, float]:
        """Learn from the fragments in order and return the mean absolute error before learning."""
        errors = np.concatenate([self._learn(fragment) for fragment in fragments])
        return {
            "train/td_error": float(np.abs(errors).mean()) if errors.size else 0.0,
            "train/visited_share": float((self.q != 0).any(axis=1).mean()),
        }

    def _learn(self, fragment: Fragment) -> np.ndarray:
        states, actions = self.index(fragment.observation), fragment.action - self.start
        discount = self.config.gamma**fragment.duration
        valid = fragment.valid
        steps = []
        for t in reversed(range(len(states))):
            target = fragment.reward[t] + discount[t] * self._next_value(fragment, t)
            rows = np.flatnonzero(valid[t])
            entries = states[t, rows] * self.index.num_actions + actions[t, rows]
            steps.append(target[rows] - self.q.ravel()[entries])
            apply_in_order(self.q.ravel(), entries, target[rows], self.config.learning_rate)
        return np.concatenate(steps)

    def _next_value(self, fragment: Fragment, t: int) -> np.ndarray:
        """Return what the observations after entry t promise, `[N]`; 0 after a termination."""
        last = fragment.length == t + 1
        value = np.zeros(len(last))
        if last.any():
            value = self._value(fragment.next_observation)
        if not last.all():
            later = self._value(map_tree(lambda x: x[min(t + 1, len(x) - 1)], fragment.observation))
            value = np.where(last, value, later)
        # Where an episode was cut, what follows belongs to the next one.
        at, rows = fragment.final_index
        here = np.flatnonzero(at == t)
        if here.size:
            final: Any = fragment.final_observation
            value[rows[here]] = self._value(map_tree(lambda x: x[here], final))
        return np.where(fragment.terminated[t], 0.0, value)

    def _value(self, observation: Any) -> np.ndarray:
        """Return the value of the best legal action, `[N]`; 0 where none is legal."""
        legal = self.index.legal(observation)
        best = np.where(legal, self.q[self.index(observation)], -np.inf).max(axis=1)
        return np.where(legal.any(axis=1), best, 0.0)

    def weights(self) -> Weights:
        """Return a copy of the table."""
        return {"q": self.q.copy()}

    def state_dict(self) -> dict[str, Any]:
        """Return the table."""
        return {"q": self.q.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume with a stored table."""
        self.q = np.array(state["q"])


def apply_in_order(
    table: np.ndarray, entries: np.ndarray, targets: np.ndarray, rate: float
) -> None:
    """Move `table[entries[i]]` to `targets[i]` by `rate`, for i = 0, 1, ... in place.

    The k updates of one entry together give (1 - rate)^k q + sum_j rate (1 - rate)^(k - 1 - j) y_j.
    """
    order = np.argsort(entries, kind="stable")
    found, first, count = np.unique(entries[order], return_index=True, return_counts=True)
    later = np.repeat(first + count, count) - 1 - np.arange(len(entries))
    weighted = rate * (1 - rate) ** later * targets[order]
    table[found] *= (1 - rate) ** count
    np.add.at(table, entries[order], weighted)


class QLearning(Agent):
    """Tabular Q-learning for Discrete and MultiDiscrete observations and Discrete actions."""

    class Config(Options):
        """Options of Q-learning."""

        learning_rate: float = Field(0.1, gt=0, le=1, description="step size alpha")
        gamma: float = Field(0.99, ge=0, le=1, description="discount of one environment step")
        epsilon: float = Field(
            0.1, ge=0, le=1, description="probability of a uniform legal action in sample mode"
        )

    def __init__(self, config: Any, setup: Setup) -> None:
        super().__init__(config, setup)
        action_space = setup.action_space
        if not isinstance(action_space, spaces.Discrete):
            raise UserError(
                f"q-learning: action space {action_space}: a Discrete space is accepted."
            )
        self.index = StateIndex(setup.observation_space, int(action_space.n))
        self._start = int(action_space.start)

    def make_actor(self, worker: int = 0, workers: int = 1) -> QActor:
        """Return an actor with an empty table."""
        q = np.zeros((self.index.size, self.index.num_actions))
        return QActor(self.index, q, self.config.epsilon, self._start)

    def make_learner(self) -> QLearner:
        """Return a learner with an empty table."""
        return QLearner(self.index, self.config, self._start)
