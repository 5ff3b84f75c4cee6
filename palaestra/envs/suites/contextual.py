"""The suite `contextual-bandit`: recommending invented films."""

from palaestra.envs.suites.bandit import HORIZON
from palaestra.envs.suites.base import Suite, Task

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
