"""What every bandit baseline shares: reading observations, counting pulls, breaking ties.

A baseline is an ordinary `Actor`: it learns the last action and the last reward from the
observation, as a recurrent policy does, and keeps its tables in its state.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar, cast

import gymnasium
import numpy as np

from palaestra.agents.base import Actor, Agent, Mode, Step
from palaestra.agents.setup import Setup
from palaestra.errors import UserError
from palaestra.experience.fragment import Tree
from palaestra.experience.state import State


@dataclass(frozen=True)
class Layout:
    """Where a bandit observation holds what a baseline reads.

    `rl2`: context [d], one-hot last action [K], last reward, t/T.
    `summary`: context [d], N_a/T [K], empirical means [K], t/T.
    """

    num_arms: int
    num_features: int
    kind: Literal["rl2", "summary"]
    start: int = 0
    """The first action's number in the action space."""

    @classmethod
    def of(
        cls,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        name: str,
        contextual: bool = False,
    ) -> Self:
        """Return the layout that widths and bounds of the two spaces imply.

        Args:
          observation_space: of one environment.
          action_space: of one environment.
          name: who asks, for the error.
          contextual: the baseline needs a context.

        Raises:
          UserError: the spaces are not those of a bandit.
        """
        if not isinstance(action_space, gymnasium.spaces.Discrete):
            raise UserError(f"{name}: action space {action_space}: a Discrete space is accepted.")
        box, K = observation_space, int(action_space.n)
        if not isinstance(box, gymnasium.spaces.Box) or len(box.shape) != 1:
            raise UserError(f"{name}: observation space {box}: a Box of one axis is accepted.")
        kind, d = _kind(box, K, contextual)
        if not kind:
            what = "holds no context" if contextual else "is not a bandit's"
            longer = "with a context before them" if contextual else "or longer by a context"
            raise UserError(
                f"{name}: observation shape {box.shape} with {K} actions {what}; accepted: "
                f"({K + 2},) for rl2, ({2 * K + 1},) for summary, {longer}."
            )
        return cls(K, d, kind, int(action_space.start))

    def reward_bounds(self, observation_space: gymnasium.Space[Any]) -> tuple[float, float]:
        """Return the bounds of a reward (or mean reward) that the observation space states."""
        box = cast(gymnasium.spaces.Box, observation_space)
        at = self.num_features + self.num_arms
        return float(box.low[at]), float(box.high[at])

    def context(self, observation: np.ndarray) -> np.ndarray:
        """Return the context features, float64 `[N, d]`."""
        return observation[:, : self.num_features].astype(np.float64)

    def last_pull(
        self, observation: np.ndarray, counts_tm1: np.ndarray, sums_tm1: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the last action, one-hot `[N, K]`, and its reward `[N]`; zeros at a first step.

        Args:
          observation: `[N, width]`.
          counts_tm1: `[N, K]` pulls before that action.
          sums_tm1: `[N, K]` summed rewards before it.
        """
        history = observation[:, self.num_features :].astype(np.float64)
        K = self.num_arms
        if self.kind == "rl2":
            return history[:, :K], history[:, K]
        # Pulls come as shares of the horizon, which is not observed: the step number recovers it.
        t = counts_tm1.sum(1, keepdims=True) + 1
        elapsed = np.where(history[:, -1:] > 0, history[:, -1:], np.inf)
        counts = np.rint(history[:, :K] / elapsed * t)
        pulled = counts - counts_tm1
        return pulled, (pulled * (counts * history[:, K : 2 * K] - sums_tm1)).sum(1)


def _kind(
    box: gymnasium.spaces.Box, K: int, contextual: bool
) -> tuple[Literal["rl2", "summary", ""], int]:
    """Return the kind of observation and its number of context features; "" if it is none.

    The K shares or one-hot numbers are bounded by 0 and 1, which tells the kinds apart. Where it
    does not (rewards in [0, 1], a box without bounds) no context is the better guess, then `rl2`.
    """
    widths: dict[Literal["rl2", "summary"], int] = {"rl2": K + 2, "summary": 2 * K + 1}
    features = {kind: box.shape[0] - width for kind, width in widths.items()}
    fits = {kind: d for kind, d in features.items() if d >= (1 if contextual else 0)}
    unit = (box.low == 0) & (box.high == 1)
    if unit.any():
        fits = {kind: d for kind, d in fits.items() if unit[d : d + K].all()}
    kinds = sorted(fits, key=lambda kind: fits[kind] > 0)
    return (kinds[0], fits[kinds[0]]) if kinds else ("", 0)


@dataclass
class PullState(State):
    """What a baseline knows of its arms."""

    counts: np.ndarray
    """float64 `[N, K]`, pulls n_a."""
    sums: np.ndarray
    """float64 `[N, K]`, summed rewards of each arm."""

    @property
    def means(self) -> np.ndarray:
        """Return the empirical means `[N, K]`; -inf for an arm that was never pulled."""
        means = np.full_like(self.sums, -np.inf)
        result: np.ndarray = np.divide(self.sums, self.counts, out=means, where=self.counts > 0)
        return result


S = TypeVar("S", bound=PullState)


class BanditActor(Actor, Generic[S]):
    """Reads the last pull from the observation, learns from it, chooses the next arm."""

    def __init__(self, layout: Layout, config: Any) -> None:
        self.layout = layout
        self.config = config

    @abstractmethod
    def initial_state(self, batch: int) -> S:
        """Return the state before the first pull."""

    def act(
        self,
        observation: Tree,
        state: State,
        reset: np.ndarray,
        rng: np.random.Generator,
        mode: Mode,
    ) -> Step:
        """Choose one arm for each row; "greedy" leaves out what it does only to explore."""
        observation = cast(np.ndarray, observation)
        known = self._cleared(cast(S, state), reset)
        pulled, reward = self.layout.last_pull(observation, known.counts, known.sums)
        known = self.learn(known, np.where(reset[:, None], 0.0, pulled), reward)
        arm, known = self.choose(known, observation, rng, mode)
        return arm + self.layout.start, known, {}

    def learn(self, state: S, pulled: np.ndarray, reward: np.ndarray) -> S:
        """Return the state after the pulls `[N, K]` (one-hot, or zeros) paid `reward [N]`."""
        counts, sums = state.counts + pulled, state.sums + pulled * reward[:, None]
        return replace(state, counts=counts, sums=sums)

    @abstractmethod
    def choose(
        self, state: S, observation: np.ndarray, rng: np.random.Generator, mode: Mode
    ) -> tuple[np.ndarray, S]:
        """Return one arm for each row, int `[N]` from 0, and the state after choosing."""

    def _cleared(self, state: S, reset: np.ndarray) -> S:
        """Return `state` with the rows of a new episode as they are before the first pull."""
        new, old = self.initial_state(len(reset)).tensors(), state.tensors()
        return state.with_tensors({k: np.where(_like(reset, v), new[k], v) for k, v in old.items()})


def _like(rows: np.ndarray, array: np.ndarray) -> np.ndarray:
    return rows.reshape(-1, *[1] * (array.ndim - 1))


class CountingActor(BanditActor[PullState]):
    """A baseline that needs nothing but pull counts and summed rewards."""

    def initial_state(self, batch: int) -> PullState:
        """Return zero pulls."""
        shape = (batch, self.layout.num_arms)
        return PullState(np.zeros(shape), np.zeros(shape))


class BanditBaseline(Agent):
    """A baseline by name; it takes the spaces of any bandit and has no learner.

    Raises:
      UserError: the spaces are not those of a bandit.
    """

    actor_class: ClassVar[type[BanditActor[Any]]]
    contextual: ClassVar[bool] = False
    """Whether it needs a context."""

    def __init__(self, config: Any, setup: Setup) -> None:
        super().__init__(config, setup)
        self.layout = Layout.of(
            setup.observation_space, setup.action_space, type(self).__name__, self.contextual
        )

    def make_actor(self, worker: int = 0, workers: int = 1) -> BanditActor[Any]:
        """Return the baseline as an actor."""
        return self.actor_class(self.layout, self.config)


def argmax(scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return for each row of `[N, K]` an index of its maximum; ties are broken uniformly."""
    tied = scores == scores.max(1, keepdims=True)
    result: np.ndarray = np.where(tied, rng.random(scores.shape), -1.0).argmax(1)
    return result
