"""Suites: named lists of tasks on which agents are evaluated, as data.

A suite says which environments are played, how many episodes, in which policy mode, and between
which two returns the score lies. Whatever changes the meaning of a number raises the version.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from palaestra.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Task:
    """One environment of a suite and what is known about it."""

    id: str
    """`suite/task`, unique and stable."""
    env_id: str
    env_kwargs: dict[str, Any]
    low: float
    """Return of uniform play, or in memory tasks of the best play without memory; score 0."""
    high: float
    """Return of the oracle, or of the best response where it is known; score 1."""
    source: str
    """Where `low`, `high` and `reference` come from."""
    episodes: int = 64
    """Episodes for each seed."""
    policy_mode: Literal["sample", "greedy"] = "sample"
    tags: tuple[str, ...] = ()
    wrappers: tuple[str, ...] = ()
    reference: dict[str, float] = field(default_factory=dict)
    """Known figures as `metric/agent` -> value, e.g. `regret/random`."""

    def score(self, mean_return: float, mean_regret: float | None = None) -> float:
        """Return the score: 0 for a return of `low`, 1 for `high`.

        A task with a known regret is scored by it, 1 - regret / (high - low): the same
        expectation without the noise of the rewards.
        """
        if mean_regret is not None:
            return 1.0 - mean_regret / (self.high - self.low)
        return (mean_return - self.low) / (self.high - self.low)

    def references(self, metric: str) -> dict[str, float]:
        """Return the known figures of one metric by agent."""
        parts = [(name.split("/", 1), value) for name, value in self.reference.items()]
        return {agent: value for (of, agent), value in parts if of == metric}


@dataclass(frozen=True)
class Suite:
    """Tasks that are evaluated together."""

    name: str
    version: int
    tasks: tuple[Task, ...]
    protocol: str
    """How the tasks are played, in a sentence or two."""
    tags: tuple[str, ...] = ()
    description: str = ""

    def select(self, ids: Sequence[str] | None = None) -> tuple[Task, ...]:
        """Return the tasks with the given ids, or without any all but those tagged `extra`.

        An id may leave out the suite's name.

        Raises:
          UserError: an id that the suite does not have.
        """
        if not ids:
            return tuple(task for task in self.tasks if "extra" not in task.tags)
        known = {task.id: task for task in self.tasks}
        full = [name if name in known else f"{self.name}/{name}" for name in ids]
        for given, name in zip(ids, full, strict=True):
            if name not in known:
                raise UserError(
                    f"suite {self.name}: no task {given!r}: {did_you_mean(name, known)}"
                )
        return tuple(known[name] for name in full)


HORIZON = 50

# Expected largest of K standard normal numbers, by numerical integration.
_NORMAL_MAXIMUM = {5: 1.1629644736, 10: 1.5387527308, 20: 1.8674750598}

_REGRET_SOURCE = (
    "random: closed form; others: mean pseudo-regret of 40,000 simulated instances with a standard "
    "error of at most 0.05 (uniform means, Bernoulli), 0.08 (normal means, scale 1; epsilon-greedy "
    "0.2) or 0.25 (scale 3; epsilon-greedy 0.6)"
)

_REGRET_AGENTS = (
    "epsilon-greedy",
    "try-all-greedy",
    "ucb",
    "ucb-alpha-0.5",
    "ucb-alpha-2",
    "thompson",
)
"""Columns of the tables below; `ucb` has bonus sqrt(1/n), `thompson` the prior of the task."""

# (K, prior, scale, sigma): regrets in the order of _REGRET_AGENTS, then suffix failures of `ucb`
# and of `try-all-greedy`.
_GAUSSIAN = {
    (5, "uniform01", 1.0, 0.1): (9.16, 2.00, 4.98, 6.59, 10.34, 2.24, 0.000, 0.121),
    (5, "uniform01", 1.0, 1.0): (12.54, 8.86, 8.74, 9.14, 10.99, 12.10, 0.276, 0.480),
    (5, "uniform01", 1.0, 3.0): (14.92, 13.53, 13.47, 13.43, 13.50, 15.95, 0.529, 0.604),
    (5, "normal", 1.0, 1.0): (34.92, 12.39, 11.55, 11.96, 15.77, 15.90, 0.128, 0.248),
    (5, "normal", 3.0, 3.0): (104.8, 37.7, 35.5, 35.5, 35.0, 47.6, 0.210, 0.255),
    (10, "uniform01", 1.0, 0.1): (11.92, 4.57, 9.29, 11.67, 15.53, 4.84, 0.000, 0.203),
    (10, "uniform01", 1.0, 1.0): (15.81, 12.02, 13.26, 13.95, 15.99, 16.86, 0.307, 0.540),
    (10, "uniform01", 1.0, 3.0): (18.62, 17.04, 17.29, 17.37, 17.73, 19.97, 0.547, 0.626),
    (10, "normal", 1.0, 1.0): (50.46, 23.18, 23.80, 24.85, 31.94, 29.72, 0.146, 0.292),
    (10, "normal", 3.0, 3.0): (152.1, 70.5, 69.4, 69.6, 70.8, 89.2, 0.243, 0.302),
    (20, "uniform01", 1.0, 0.1): (13.58, 9.59, 14.25, 16.39, 19.71, 9.47, 0.000, 0.277),
    (20, "uniform01", 1.0, 1.0): (17.79, 16.59, 18.04, 18.52, 19.80, 20.16, 0.343, 0.525),
    (20, "uniform01", 1.0, 3.0): (20.80, 20.37, 20.59, 20.71, 21.00, 22.31, 0.544, 0.606),
    (20, "normal", 1.0, 1.0): (65.28, 45.69, 47.99, 49.73, 58.48, 50.44, 0.139, 0.293),
    (20, "normal", 3.0, 3.0): (196.4, 137.2, 138.2, 138.8, 142.7, 151.1, 0.239, 0.295),
}

# (K, gap): the same columns.
_BERNOULLI = {
    (5, 0.2): (7.00, 5.89, 5.94, 6.39, 7.20, 6.48, 0.060, 0.456),
    (5, 0.5): (15.11, 7.78, 6.99, 8.58, 13.97, 9.09, 0.001, 0.216),
    (10, 0.2): (8.41, 7.44, 8.14, 8.33, 8.71, 8.33, 0.068, 0.483),
    (10, 0.5): (19.48, 11.53, 13.80, 15.74, 19.91, 15.98, 0.015, 0.252),
    (20, 0.2): (9.19, 8.92, 9.15, 9.26, 9.43, 9.25, 0.358, 0.485),
    (20, 0.5): (22.12, 17.06, 19.61, 21.82, 23.17, 21.20, 0.077, 0.256),
}


def _references(random_regret: float, row: tuple[float, ...]) -> dict[str, float]:
    regrets = dict(zip(_REGRET_AGENTS, row, strict=False))
    return {
        "regret/random": random_regret,
        **{f"regret/{agent}": value for agent, value in regrets.items()},
        "suffix_failure/ucb": row[-2],
        "suffix_failure/try-all-greedy": row[-1],
    }


def _gaussian(K: int, prior: str, scale: float, sigma: float) -> Task:
    if prior == "uniform01":
        low, high = HORIZON / 2, HORIZON * K / (K + 1)
    else:
        low, high = 0.0, HORIZON * scale * _NORMAL_MAXIMUM[K]
    return Task(
        id=f"bandit/k{K}-{prior.removesuffix('01')}-{sigma:g}",
        env_id="palaestra/GaussianBandit-v0",
        env_kwargs={
            "K": K,
            "T": HORIZON,
            "mean_prior": prior,
            "prior_scale": scale,
            "sigma": sigma,
            "observation": "rl2",
        },
        low=low,
        high=high,
        source=_REGRET_SOURCE,
        tags=("gaussian", f"k{K}"),
        reference=_references(high - low, _GAUSSIAN[K, prior, scale, sigma]),
    )


def _bernoulli(K: int, gap: float) -> Task:
    high = HORIZON * (0.5 + gap / 2)
    low = high - HORIZON * gap * (K - 1) / K
    return Task(
        id=f"bandit/k{K}-bernoulli-{gap:g}",
        env_id="palaestra/BernoulliBandit-v0",
        env_kwargs={"K": K, "T": HORIZON, "gap": gap, "observation": "rl2"},
        low=low,
        high=high,
        source=_REGRET_SOURCE,
        tags=("bernoulli", f"k{K}"),
        reference=_references(high - low, _BERNOULLI[K, gap]),
    )


BANDIT = Suite(
    name="bandit",
    version=1,
    tasks=(
        *(_gaussian(*row) for row in _GAUSSIAN),
        *(_bernoulli(*row) for row in _BERNOULLI),
    ),
    protocol=(
        "one new instance for each episode of 50 pulls; instances and reward tapes are the same "
        "for every agent; score = 1 - pseudo-regret / regret of uniform play"
    ),
    tags=("bandit",),
    description="Gaussian and Bernoulli bandits with 5, 10 and 20 arms at several noise levels.",
)


# K: regret of uniform play and of the best fixed film (30,000 matrices, standard error 0.05), then
# regret and coverage of LinUCB (alpha 0.5) with r0 = 0 and r0 = 3 (300 matrices, standard error up
# to 1.3).
_MOVIES = {
    5: (51.73, 23.53, 39.2, 0.39, 14.2, 0.99),
    10: (67.26, 29.90, 52.2, 0.21, 29.9, 0.85),
    20: (79.18, 34.26, 66.3, 0.11, 42.5, 0.47),
}

# 50 E[R], by numerical integration over the law of R = clip(3 + b + 0.8 p.q, 0.5, 5).
_MOVIES_LOW = 149.701


def _movies(K: int) -> Task:
    random, fixed, pessimist, pessimist_coverage, centred, centred_coverage = _MOVIES[K]
    return Task(
        id=f"contextual-bandit/movies-k{K}",
        env_id="palaestra/SyntheticMovies-v0",
        env_kwargs={"K": K, "T": HORIZON, "observation": "rl2"},
        low=_MOVIES_LOW,
        high=_MOVIES_LOW + random,
        source=(
            "low: numerical integration; uniform play and the best fixed film: 30,000 simulated "
            "rating matrices, standard error 0.05; LinUCB: 300 matrices, standard error up to 1.3"
        ),
        tags=("contextual", f"k{K}"),
        reference={
            "regret/random": random,
            "regret/best-fixed": fixed,
            "regret/lin-ucb": pessimist,
            "regret/lin-ucb-r0-3": centred,
            "coverage/lin-ucb": pessimist_coverage,
            "coverage/lin-ucb-r0-3": centred_coverage,
        },
    )


CONTEXTUAL_BANDIT = Suite(
    name="contextual-bandit",
    version=1,
    tasks=tuple(_movies(K) for K in _MOVIES),
    protocol=(
        "new films and users for each episode of 50 recommendations, the same for every agent; "
        "score = 1 - pseudo-regret / regret of uniform play"
    ),
    tags=("bandit", "contextual"),
    description="Recommending one of 5, 10 or 20 invented films to users with known features.",
)

# (opponent, who opens): return of uniform play, of a perfect player that breaks ties uniformly, and
# of the best response. MCTS with 1000 simulations is taken for perfect.
_GAMES: dict[tuple[str, Literal["agent", "opponent"]], tuple[float, float, float]] = {
    ("random", "agent"): (0.2968, 0.9678, 0.9948),
    ("random", "opponent"): (-0.2968, 0.7775, 0.9249),
    ("minimax", "agent"): (-0.7775, 0.0, 0.0),
    ("minimax", "opponent"): (-0.9678, 0.0, 0.0),
    ("noisy", "agent"): (-0.2173, 0.7314, 0.7949),
    ("noisy", "opponent"): (-0.6569, 0.4660, 0.5921),
    ("mcts", "agent"): (-0.7775, 0.0, 0.0),
    ("mcts", "opponent"): (-0.9678, 0.0, 0.0),
}

_GAME_TAGS = {"noisy": ("extra",), "mcts": ("extra", "slow")}


def _game(opponent: str, first: Literal["agent", "opponent"]) -> Task:
    uniform, perfect, best = _GAMES[opponent, first]
    order = "first" if first == "agent" else "second"
    approximate = " against a perfect opponent, which mcts only nearly is"
    return Task(
        id=f"tictactoe/{opponent}-{order}",
        env_id="palaestra/TicTacToe-v0",
        env_kwargs={"opponent": opponent, "first": first},
        low=uniform,
        high=best,
        source="exact, by dynamic programming" + (approximate if opponent == "mcts" else ""),
        tags=(opponent, order, *_GAME_TAGS.get(opponent, ())),
        wrappers=("action-mask",),
        reference={"return/random": uniform, "return/perfect": perfect, "return/best": best},
    )


TICTACTOE = Suite(
    name="tictactoe",
    version=1,
    tasks=tuple(_game(opponent, first) for opponent, first in _GAMES),
    protocol=(
        "whole games from the empty board, reward +1, 0 or -1 at the end; opponents answer a board "
        "the same way for every agent; score 0 is uniform play, 1 the best response"
    ),
    tags=("game",),
    description="Tic-tac-toe against random and perfect play, opening and replying.",
)


def _memory(
    name: str, env: str, env_kwargs: dict[str, Any], low: float, high: float, tags: tuple[str, ...]
) -> Task:
    return Task(
        id=f"memory/{name}",
        env_id=f"palaestra/{env}-v0",
        env_kwargs=env_kwargs,
        low=low,
        high=high,
        source="closed form: the best play without memory, the best play with memory",
        tags=tags,
        reference={"return/memoryless": low, "return/best": high},
    )


def _recall(gap: int, *tags: str) -> Task:
    K = 4
    kwargs = {"K": K, "gap": gap, "distractors": True}
    return _memory(f"recall-{gap}", "Recall", kwargs, 1 / K, 1.0, ("recall", *tags))


def _tmaze(length: int) -> Task:
    # Without memory to the junction and either turn: 4 or -0.1.
    return _memory(f"tmaze-{length}", "TMaze", {"length": length}, 1.95, 4.0, ("tmaze",))


def _repeat(k: int, T: int) -> Task:
    K = 4
    kwargs = {"k": k, "K": K, "T": T}
    return _memory(f"repeat-{k}", "RepeatPrevious", kwargs, 2 / K - 1, 1.0, ("repeat",))


def _count(K: int, copies: int) -> Task:
    # The present card is a uniform one of the pack. Where it is the symbol asked for, the count is
    # uniform on 1 .. copies, and elsewhere on 0 .. copies.
    right = (1 / copies + (K - 1) / (copies + 1)) / K
    kwargs = {"K": K, "copies": copies}
    return _memory(f"count-{K}", "CountRecall", kwargs, 2 * right - 1, 1.0, ("count",))


def _meta_bandit(K: int) -> Task:
    bandit = _gaussian(K, "normal", 1.0, 1.0)
    return replace(bandit, id=f"memory/bandit-{K}", tags=("bandit", f"k{K}"))


MEMORY = Suite(
    name="memory",
    version=1,
    tasks=(
        _recall(16),
        _recall(64),
        _recall(256, "extra"),
        _tmaze(10),
        _tmaze(50),
        _repeat(4, 52),
        _repeat(32, 104),
        _repeat(64, 156),
        _count(2, 26),
        _count(4, 26),
        _count(13, 16),
        _meta_bandit(5),
        _meta_bandit(20),
    ),
    protocol=(
        "one new instance for each episode, the same for every agent; score 0 is the best play "
        "without memory, on bandits uniform play, and 1 the best play with memory, on bandits "
        "always the best arm"
    ),
    tags=("memory",),
    description="Recall after a wait, T-mazes, repeating, counting, and bandits from raw history.",
)
