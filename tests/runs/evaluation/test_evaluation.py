import io
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from rich.console import Console

import palaestra.metrics  # noqa: F401 - registers the metrics
from palaestra.agents.base import Actor, Mode, Step, make
from palaestra.envs import make_vec
from palaestra.envs.suites import BANDIT, CONTEXTUAL_BANDIT, TICTACTOE, Suite, Task
from palaestra.envs.tictactoe.rules import POWERS
from palaestra.envs.tictactoe.solver import solve
from palaestra.errors import UserError
from palaestra.experience.fragment import Tree
from palaestra.experience.state import State
from palaestra.runs.evaluation.evaluate import baseline, evaluate, print_comparison
from palaestra.runs.evaluation.play import play
from palaestra.runs.evaluation.results import Evaluation
from palaestra.runs.evaluation.scoring import estimate

ONE = ["k5-uniform-1"]


def ucb(**options: object) -> Evaluation:
    arguments = {"seeds": 3, "episodes": 8, "tasks": ONE, "agent": "ucb", "repetitions": 200}
    return evaluate(baseline("ucb"), BANDIT, **(arguments | options))  # type: ignore[arg-type]


class Countdown(gymnasium.Env):
    """Episodes of `seed % 5 + 1` steps; each pays 1, and the last 10 more."""

    def __init__(self) -> None:
        self.observation_space, self.action_space = Box(0, 9, (1,)), Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.left = 1 if seed is None else seed % 5 + 1
        return np.array([self.left], np.float32), {}

    def step(self, action: int) -> tuple:
        self.left -= 1
        done = self.left == 0
        info = {"regret": 0.5 if done else 0.0}
        return np.array([self.left], np.float32), 1.0 + 10 * done, done, False, info


class Zero(Actor):
    """Always action 0."""

    def initial_state(self, batch: int) -> State:
        return State()

    def act(
        self,
        observation: Tree,
        state: State,
        reset: np.ndarray,
        rng: np.random.Generator,
        mode: Mode,
    ) -> Step:
        return np.zeros(len(reset), np.int64), state, {}


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_each_row_plays_one_whole_episode_whatever_its_length(mode: AutoresetMode) -> None:
    env = SyncVectorEnv([Countdown] * 10, autoreset_mode=mode)
    episodes = play(env, Zero(), range(10), np.random.default_rng(0), "sample", ["regret", "none"])
    lengths = np.arange(10) % 5 + 1
    assert episodes.length.tolist() == lengths.tolist()
    assert np.allclose(episodes.total(episodes.reward), lengths + 10)
    assert np.allclose(episodes.total(episodes.info["regret"]), 0.5)
    assert "none" not in episodes.info


class Arm(Zero):
    """Always one arm of the task's bandit."""

    def __init__(self, arm: int) -> None:
        self.arm = arm

    def act(self, observation: Tree, state: State, reset: np.ndarray, *rest: object) -> Step:
        return np.full(len(reset), self.arm), state, {}


def always(arm: int, **options: object) -> Evaluation:
    """Return the evaluation of an agent that needs no randomness."""
    return evaluate(lambda *spaces: Arm(arm), BANDIT, seeds=2, tasks=ONE, **options)  # type: ignore[arg-type]


def test_an_episode_is_the_same_however_many_are_played_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = always(0, episodes=10)
    monkeypatch.setattr(sys.modules[evaluate.__module__], "MAX_ROWS", 4)
    assert always(0, episodes=10).rows == whole.rows
    assert always(0, episodes=3).rows[:3] == whole.rows[:3]


def test_the_same_evaluation_twice_gives_the_same_numbers() -> None:
    assert ucb().to_json() == ucb().to_json()
    assert ucb().rows == ucb().rows


def test_a_seed_plays_the_same_whichever_other_seeds_and_tasks_are_played() -> None:
    alone = ucb(seeds=[2])
    among = ucb(seeds=[0, 2], tasks=["k10-uniform-1", *ONE])
    rows = [r for r in among.rows if r["seed"] == 2 and r["task"] == "bandit/k5-uniform-1"]
    assert alone.rows == rows


def test_agents_see_the_same_instances_and_the_same_rewards() -> None:
    first, other = always(1, episodes=4), always(2, episodes=4)
    assert always(1, episodes=4).rows == first.rows
    for one, two in zip(first.tasks[0].trace, other.tasks[0].trace, strict=True):
        assert one["best_expected_reward"] == two["best_expected_reward"]
        assert one["expected_reward"] != two["expected_reward"]


def test_scores_are_one_minus_regret_over_the_regret_of_uniform_play() -> None:
    result = ucb().tasks[0]
    regret, score = result.metrics["regret"], result.score
    assert score.mean.value == pytest.approx(
        1 - regret.mean.value / result.task.reference["regret/random"]
    )


def test_uniform_play_scores_zero_and_its_interval_covers_the_exact_regret() -> None:
    found = evaluate(baseline("random"), BANDIT, seeds=10, episodes=64, agent="random", tasks=ONE)
    regret = found.tasks[0].metrics["regret"]
    error = np.std(regret.by_seed, ddof=1) / np.sqrt(10)
    assert abs(regret.mean.value - 50 / 3) < 4 * error
    assert abs(found.aggregate["mean"].value) < 4 * error / (50 / 3)


def test_uniform_and_perfect_tictactoe_have_their_exact_returns() -> None:
    class Perfect(Zero):
        def act(self, observation: Tree, state: State, reset: np.ndarray, *rest: object) -> Step:
            boards = observation["observation"]  # type: ignore[index]
            moves = solve().optimal[boards.astype(np.int64) @ POWERS]
            return np.array([(m & -m).bit_length() - 1 for m in moves.tolist()]), state, {}

    arguments = {"seeds": 4, "episodes": 250, "repetitions": 200}
    uniform = evaluate(baseline("random"), TICTACTOE, **arguments)  # type: ignore[arg-type]
    perfect = evaluate(lambda *spaces: Perfect(), TICTACTOE, **arguments)  # type: ignore[arg-type]
    for result in uniform.tasks:
        returns = np.array([row["return"] for row in result.rows])
        error = returns.std(ddof=1) / np.sqrt(len(returns))
        assert abs(returns.mean() - result.task.low) < 4 * error, result.task.id
    for result in perfect.tasks:
        assert result.metrics["loss"].mean.value == 0
        assert result.metrics["blunder_rate"].mean.value == 0


def test_blunders_of_uniform_play_have_their_exact_rates() -> None:
    found = evaluate(
        baseline("random"),
        TICTACTOE,
        seeds=5,
        episodes=400,
        tasks=["random-first"],
        repetitions=200,
    )
    metrics = found.tasks[0].metrics
    for name, exact in (("blunder_rate", 0.318), ("blunder_rate_possible", 0.578)):
        error = np.std(metrics[name].by_seed, ddof=1) / np.sqrt(5)
        # Five seeds: the 99.9 % quantile of Student's t with 4 degrees of freedom is 7.2.
        assert abs(metrics[name].mean.value - exact) < 7.2 * error + 0.0005


def test_a_strip_holds_the_first_episodes_step_by_step() -> None:
    trace = ucb().tasks[0].trace
    assert len(trace) == 3
    assert [len(trace[0][k]) for k in ("actions", "rewards", "expected_reward", "regret")] == [
        50
    ] * 4
    assert trace[0]["actions"][:5] == [0, 1, 2, 3, 4]


def test_a_strip_of_a_game_holds_its_boards_from_first_to_last() -> None:
    found = evaluate(baseline("random"), TICTACTOE, seeds=1, tasks=["random-first"], repetitions=50)
    for game in found.tasks[0].trace:
        boards = np.array(game["boards"])
        assert len(boards) == len(game["actions"]) + 1
        assert (boards[0] == 0).all()
        for t, action in enumerate(game["actions"]):
            assert boards[t, action] == 0
            assert boards[t + 1, action] == 1
            assert ((boards[t] > 0) <= (boards[t] == boards[t + 1])).all()


def test_tasks_that_do_not_fit_are_listed_with_the_reason() -> None:
    found = evaluate(
        baseline("thompson-beta"), BANDIT, seeds=2, episodes=2, tasks=[*ONE, "k5-bernoulli-0.2"]
    )
    assert [result.task.id for result in found.tasks] == ["bandit/k5-bernoulli-0.2"]
    assert "rewards 0 and 1" in found.not_applicable["bandit/k5-uniform-1"]


def test_an_agent_that_fits_no_task_is_an_error_with_the_reason() -> None:
    with pytest.raises(UserError, match=r"lin fits no task of suite bandit; .*no context"):
        evaluate(baseline("lin-ucb"), BANDIT, seeds=1, tasks=ONE, agent="lin")
    agent = make("ucb", Box(0, 1, (4,)), Discrete(2))
    with pytest.raises(UserError, match="was made for"):
        evaluate(agent, BANDIT, seeds=1, tasks=ONE)


def test_an_agent_plays_the_tasks_that_it_was_made_for() -> None:
    (task,) = CONTEXTUAL_BANDIT.select(["movies-k5"])
    env = make_vec(task.env_id, 1, **task.env_kwargs)
    agent = make("lin-ucb", env.single_observation_space, env.single_action_space)
    found = evaluate(agent, CONTEXTUAL_BANDIT, seeds=1, episodes=4)
    assert [result.task.id for result in found.tasks] == [task.id]
    assert set(found.not_applicable) == {f"contextual-bandit/movies-k{K}" for K in (10, 20)}


def test_unknown_tasks_and_no_seeds_are_errors() -> None:
    with pytest.raises(UserError, match="k5-uniform-1"):
        ucb(tasks=["k5-uniform"])
    with pytest.raises(UserError, match="seed"):
        ucb(seeds=[])


def test_few_seeds_warn_and_one_seed_says_what_its_interval_is_over() -> None:
    assert "3 seeds" in ucb().warnings[0]
    assert not ucb(seeds=5).warnings
    alone = ucb(seeds=1)
    assert "over its episodes" in alone.warnings[0]
    assert alone.to_json()["intervals"]["over"] == "episodes"
    regret = alone.tasks[0].metrics["regret"].mean
    low, high = regret.bounds
    assert low < regret.value < high


def test_seeds_are_the_unit_of_replication() -> None:
    found = ucb(seeds=5, episodes=16).tasks[0].metrics["regret"]
    rows = ucb(seeds=5, episodes=16).rows
    means = [np.mean([r["regret"] for r in rows if r["seed"] == seed]) for seed in range(5)]
    assert np.allclose(found.by_seed, means)
    assert found.iqm.value == pytest.approx(np.mean(sorted(means)[1:-1]))
    low, high = found.mean.bounds
    assert min(means) <= low < high <= max(means)


def test_shares_of_steps_are_pooled_within_a_seed() -> None:
    rng = np.random.default_rng(0)
    values, weights = np.array([1.0, 0.0, np.nan]), np.array([1.0, 3.0, 0.0])
    assert estimate([values], [weights], rng, 100).mean.value == pytest.approx(1 / 4)
    two = estimate([values, np.ones(3)], [weights, np.ones(3)], rng, 100)
    assert two.by_seed == pytest.approx((1 / 4, 1))


def test_a_metric_that_is_defined_nowhere_is_not_a_number() -> None:
    nothing = estimate([np.full(2, np.nan)] * 2, [np.zeros(2)] * 2, np.random.default_rng(0), 10)
    assert math.isnan(nothing.mean.value)


def test_a_folder_holds_every_episode_and_the_summary(tmp_path: Path) -> None:
    found = ucb()
    found.save(tmp_path / "eval")
    lines = (tmp_path / "eval" / "episodes.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 3 * 8
    assert {"task", "seed", "episode", "return", "length", "regret", "score"} <= set(rows[0])
    summary = json.loads((tmp_path / "eval" / "summary.json").read_text())
    assert (summary["agent"], summary["suite"], summary["mode"]) == ("ucb", "bandit", "sample")
    assert summary["seeds"] == [0, 1, 2]
    assert summary["tasks"][0]["episodes"] == 8
    assert summary["versions"]["palaestra/GaussianBandit-v0"] == "v0"
    assert "NaN" not in (tmp_path / "eval" / "summary.json").read_text()


def test_the_table_names_seeds_episodes_mode_and_versions() -> None:
    console = Console(record=True, width=200, file=io.StringIO())
    print_comparison([ucb(), ucb(agent="again", mode="greedy")], console)
    text = " ".join(console.export_text().split())
    for part in ("over 3 evaluation seeds", "8 episodes", "sample for ucb", "greedy for again"):
        assert part in text, part
    assert "warning" in text


def test_progress_is_told_of_every_task_and_seed() -> None:
    told: list[tuple[int, int, str]] = []
    ucb(tasks=["k5-uniform-1", "k5-uniform-3"], progress=lambda *args: told.append(args))
    assert [done for done, _, _ in told] == [1, 2, 3, 4, 5, 6]
    assert {total for _, total, _ in told} == {6}


def test_other_wrappers_can_replace_those_of_the_tasks() -> None:
    found = evaluate(
        baseline("random"), TICTACTOE, seeds=1, episodes=64, tasks=["random-first"], wrappers=()
    )
    assert found.tasks[0].metrics["illegal_rate"].mean.value > 0


def test_a_suite_of_other_environments_is_scored_by_its_return() -> None:
    task = Task("cart/pole", "CartPole-v1", {}, 0.0, 100.0, "made up", episodes=4)
    suite = Suite("cart", 1, (replace(task, tags=("control",)),), "four episodes")
    found = evaluate(baseline("random"), suite, seeds=2, repetitions=50)
    result = found.tasks[0]
    assert result.score.mean.value == pytest.approx(result.metrics["return"].mean.value / 100)
    assert result.metrics["length"].mean.value == result.metrics["return"].mean.value
    assert "regret" not in result.metrics
