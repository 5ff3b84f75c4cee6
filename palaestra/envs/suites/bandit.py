"""The suite `bandit`, with the regrets of every baseline."""

from palaestra.envs.suites.base import Suite, Task

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


def gaussian(K: int, prior: str, scale: float, sigma: float) -> Task:
    """Return the task of Gaussian bandits with K arms, prior of the means, its scale and noise."""
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
        *(gaussian(*row) for row in _GAUSSIAN),
        *(_bernoulli(*row) for row in _BERNOULLI),
    ),
    protocol=(
        "one new instance for each episode of 50 pulls; instances and reward tapes are the same "
        "for every agent; score = 1 - pseudo-regret / regret of uniform play"
    ),
    tags=("bandit",),
    description="Gaussian and Bernoulli bandits with 5, 10 and 20 arms at several noise levels.",
)
