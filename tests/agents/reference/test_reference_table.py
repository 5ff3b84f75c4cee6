"""The suite's reference figures are reproduced by the baselines that they name."""

from functools import cache

import numpy as np
import pytest

from palaestra.agents.base import make
from palaestra.envs import make_vec
from palaestra.envs.suites import BANDIT, CONTEXTUAL_BANDIT, HORIZON, Task
from palaestra.experience.episodes import Episodes
from palaestra.metrics import decisions
from palaestra.runs.evaluation.play import play

INSTANCES = 2_000
TASKS = {task.id: task for suite in (BANDIT, CONTEXTUAL_BANDIT) for task in suite.tasks}
BANDITS = [task.id for task in BANDIT.tasks]

OPTIONS = {
    "ucb": ("ucb", {}),
    "ucb-alpha-0.5": ("ucb", {"bonus": "alpha", "alpha": 0.5}),
    "ucb-alpha-2": ("ucb", {"bonus": "alpha", "alpha": 2.0}),
    "lin-ucb-r0-3": ("lin-ucb", {"r0": 3.0}),
}


def table_error(task: Task, agent: str) -> float:
    """Return the largest standard error of a figure of the table, as its source states it."""
    scale = task.env_kwargs.get("prior_scale")
    if task.env_kwargs.get("mean_prior") != "normal":
        return 0.05
    if agent == "epsilon-greedy":
        return {1.0: 0.2, 3.0: 0.6}[scale]
    return {1.0: 0.08, 3.0: 0.25}[scale]


@cache
def played(task_id: str, agent: str, instances: int = INSTANCES) -> Episodes:
    task = TASKS[task_id]
    name, options = OPTIONS.get(agent, (agent, {}))
    if agent == "thompson":
        name, options = matched_thompson(task)
    env = make_vec(task.env_id, instances, **task.env_kwargs)
    actor = make(
        name, env.single_observation_space, env.single_action_space, **options
    ).make_actor()
    rng = np.random.default_rng(0)
    keys = ("regret", "best_expected_reward")
    return play(env, actor, range(instances), rng, "sample", keys)


def matched_thompson(task: Task) -> tuple[str, dict[str, float]]:
    """Return the Thompson sampler whose prior is the task's."""
    options = task.env_kwargs
    if "gap" in options:
        return "thompson-beta", {}
    uniform = options["mean_prior"] == "uniform01"
    mean, variance = (0.5, 1 / 12) if uniform else (0.0, options["prior_scale"] ** 2)
    return "thompson-gauss", {
        "prior_mean": mean,
        "prior_variance": variance,
        "sigma": options["sigma"],
    }


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


@pytest.mark.parametrize("task_id", BANDITS)
def test_uniform_play_has_the_exact_regret(task_id: str) -> None:
    mean, error = mean_and_error(decisions.regret(played(task_id, "random")))
    assert abs(mean - TASKS[task_id].reference["regret/random"]) < 4 * error


@pytest.mark.parametrize(
    "agent",
    ["ucb", "ucb-alpha-0.5", "ucb-alpha-2", "try-all-greedy", "epsilon-greedy", "thompson"],
)
@pytest.mark.parametrize("task_id", BANDITS)
def test_rules_have_the_regret_of_the_table(task_id: str, agent: str) -> None:
    task = TASKS[task_id]
    mean, error = mean_and_error(decisions.regret(played(task_id, agent)))
    tolerance = 4 * np.hypot(error, table_error(task, agent))
    assert abs(mean - task.reference[f"regret/{agent}"]) < tolerance


@pytest.mark.parametrize("agent", ["ucb", "try-all-greedy"])
@pytest.mark.parametrize("task_id", BANDITS)
def test_suffix_failures_are_those_of_the_table(task_id: str, agent: str) -> None:
    table = TASKS[task_id].reference[f"suffix_failure/{agent}"]
    failed = decisions.suffix_failure(played(task_id, agent))
    # The table is of 40,000 instances and is rounded to 0.001.
    variance = max(table, 1 / INSTANCES) * (1 - table)
    error = np.sqrt(variance / INSTANCES + variance / 40_000)
    assert abs(failed.mean() - table) < 4 * error + 0.0005


@pytest.mark.parametrize("K", [5, 10, 20])
def test_uniform_play_covers_and_fails_as_its_closed_forms_say(K: int) -> None:
    episodes = played(f"bandit/k{K}-uniform-1", "random")
    for t in (10, 25, 50):
        mean, error = mean_and_error(decisions.coverage_curve(episodes)[:, t - 1])
        assert abs(mean - (1 - (1 - 1 / K) ** t)) < 4 * max(error, 1e-3)
    mean, error = mean_and_error(decisions.suffix_failure(episodes))
    assert abs(mean - (1 - 1 / K) ** 25) < 4 * max(error, 1e-3)
    mean, error = mean_and_error(decisions.k_min_fraction(episodes))
    assert abs(mean - {5: 0.648, 10: 0.380, 20: 0.066}[K]) < 4 * error


@pytest.mark.parametrize("K", [5, 10, 20])
def test_greedy_locked_never_leaves_its_first_arm(K: int) -> None:
    task = TASKS[f"bandit/k{K}-uniform-1"]
    episodes = played(task.id, "greedy-locked")
    assert (episodes.action == episodes.action[:, :1]).all()
    assert np.allclose(decisions.coverage(episodes), 1 / K)
    assert (decisions.k_min_fraction(episodes) == 0).all()
    assert (decisions.greedy_fraction(episodes) == 1).all()
    mean, error = mean_and_error(decisions.suffix_failure(episodes))
    assert abs(mean - (1 - 1 / K)) < 4 * error
    mean, error = mean_and_error(decisions.regret(episodes))
    assert abs(mean - task.reference["regret/random"]) < 4 * error


@pytest.mark.parametrize("agent", ["ucb", "ucb-alpha-2", "try-all-greedy"])
def test_rules_that_try_everything_cover_an_arm_a_step(agent: str) -> None:
    coverage = decisions.coverage_curve(played("bandit/k20-uniform-1", agent))
    assert np.allclose(coverage, np.minimum(np.arange(1, HORIZON + 1), 20) / 20)


def test_the_oracle_scores_one_and_uniform_play_zero() -> None:
    task = TASKS["bandit/k5-uniform-1"]
    assert task.score(task.high) == pytest.approx(1)
    assert task.score(task.low) == 0
    assert task.score(0.0, 0.0) == 1
    assert task.score(0.0, task.high - task.low) == 0


@pytest.mark.parametrize(
    ("agent", "errors"), [("random", 0.05), ("lin-ucb", 1.3), ("lin-ucb-r0-3", 1.3)]
)
@pytest.mark.parametrize("K", [5, 10, 20])
def test_contextual_rules_have_the_regret_of_the_table(K: int, agent: str, errors: float) -> None:
    task = TASKS[f"contextual-bandit/movies-k{K}"]
    mean, error = mean_and_error(decisions.regret(played(task.id, agent, 300)))
    assert abs(mean - task.reference[f"regret/{agent}"]) < 4 * np.hypot(error, errors)
