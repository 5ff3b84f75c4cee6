import json
from dataclasses import FrozenInstanceError, asdict

import pytest

import palaestra.envs
from palaestra.envs.suites import BANDIT, CONTEXTUAL_BANDIT, MEMORY, TICTACTOE, Suite, Task
from palaestra.errors import UserError
from palaestra.registry import registry

SUITES = [BANDIT, CONTEXTUAL_BANDIT, TICTACTOE, MEMORY]
TASKS = [task for suite in SUITES for task in suite.tasks]


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_a_suite_is_registered_under_its_name(suite: Suite) -> None:
    assert registry.get("suite", suite.name) is suite


def test_ids_are_unique_and_begin_with_the_suite() -> None:
    assert len({task.id for task in TASKS}) == len(TASKS)
    assert all(t.id.startswith(f"{suite.name}/") for suite in SUITES for t in suite.tasks)


def test_ids_are_stable() -> None:
    assert len(BANDIT.tasks) == 21
    assert BANDIT.tasks[0].id == "bandit/k5-uniform-0.1"
    assert BANDIT.tasks[-1].id == "bandit/k20-bernoulli-0.5"
    assert [task.id for task in CONTEXTUAL_BANDIT.tasks] == [
        f"contextual-bandit/movies-k{K}" for K in (5, 10, 20)
    ]
    names = "recall-16 recall-64 recall-256 tmaze-10 tmaze-50 repeat-4 repeat-32 repeat-64"
    names += " count-2 count-4 count-13 bandit-5 bandit-20"
    assert [task.id for task in MEMORY.tasks] == [f"memory/{name}" for name in names.split()]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.id)
def test_every_task_constructs_has_bounds_in_order_and_is_plain_data(task: Task) -> None:
    env = palaestra.envs.make_vec(task.env_id, 2, wrappers=task.wrappers, **task.env_kwargs)
    env.reset(seed=0)
    env.close()
    assert task.low < task.high
    assert task.source
    assert json.loads(json.dumps(asdict(task)))["id"] == task.id


def test_the_score_of_the_exact_random_regret_is_zero() -> None:
    """Closed forms of the regret of uniform play: T times the mean gap."""
    exact = {"k5-uniform-1": 16.67, "k20-uniform-3": 22.62, "k10-normal-3": 230.8}
    exact |= {"k5-normal-1": 58.15, "k10-bernoulli-0.2": 9, "k20-bernoulli-0.5": 23.75}
    for name, regret in exact.items():
        (task,) = BANDIT.select([name])
        assert task.reference["regret/random"] == pytest.approx(regret, rel=5e-4)
        assert task.score(0.0, task.reference["regret/random"]) == 0


def test_references_are_looked_up_by_metric() -> None:
    (task,) = BANDIT.select(["k5-uniform-1"])
    assert task.references("regret")["ucb"] == 8.74
    assert task.references("suffix_failure") == {"ucb": 0.276, "try-all-greedy": 0.480}


def test_extra_tasks_are_played_on_request_alone() -> None:
    default = {task.id for task in TICTACTOE.select()}
    assert default == {
        f"tictactoe/{o}-{s}" for o in ("random", "minimax") for s in ("first", "second")
    }
    assert TICTACTOE.select(["noisy-first", "tictactoe/mcts-second"])[1].tags[0] == "mcts"


def test_memory_tasks_lie_between_the_best_play_without_and_with_memory() -> None:
    bounds = {name.removeprefix("memory/"): (t.low, t.high) for name, t in _by_id(MEMORY).items()}
    assert bounds["recall-64"] == (0.25, 1)
    assert bounds["tmaze-50"] == (1.95, 4)
    assert bounds["repeat-32"] == (-0.5, 1)
    assert bounds["count-2"] == pytest.approx((2 * (1 / 52 + 1 / 54) - 1, 1))
    assert bounds["bandit-5"] == (0, pytest.approx(50 * 1.16296, rel=1e-5))
    assert bounds["bandit-20"] == (0, pytest.approx(50 * 1.86748, rel=1e-5))


def test_the_bandits_of_the_memory_suite_are_those_of_the_bandit_suite() -> None:
    for K in (5, 20):
        (one,), (other,) = MEMORY.select([f"bandit-{K}"]), BANDIT.select([f"k{K}-normal-1"])
        assert (one.env_kwargs, one.reference) == (other.env_kwargs, other.reference)
        assert one.env_kwargs["observation"] == "rl2"


def _by_id(suite: Suite) -> dict[str, Task]:
    return {task.id: task for task in suite.tasks}


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(UserError, match="k5-uniform-1"):
        BANDIT.select(["k5-unifrom-1"])


def test_tasks_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        BANDIT.tasks[0].low = 0.0  # type: ignore[misc]
