"""What each memory task is, and what can be reached in it with and without memory."""

import itertools
from fractions import Fraction
from typing import Any

import gymnasium
import numpy as np
import pytest

import palaestra.envs  # noqa: F401  (registers the environments)
from palaestra.envs import make_vec
from palaestra.envs.memory.count_recall import CountRecallOptions
from palaestra.envs.memory.recall import CUE, QUESTION, WAIT
from palaestra.envs.memory.tmaze import CORRIDOR, EAST, JUNCTION, NORTH, SOUTH, WEST
from palaestra.envs.suites import MEMORY, Task

TASKS = [task for task in MEMORY.tasks if "bandit" not in task.tags]
SCRIPTS = [task for task in TASKS if "tmaze" not in task.tags]

every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.id)
every_script = pytest.mark.parametrize("task", SCRIPTS, ids=lambda task: task.id)


def single(env_id: str, **options: Any) -> Any:
    return gymnasium.make(env_id, **options).unwrapped


class Oracle:
    """Remembers what it has seen, row by row, and nothing else."""

    def __init__(self, task: Task, rows: int) -> None:
        self.task = task
        self.options = task.env_kwargs
        self.seen: list[np.ndarray] = []
        self.rows = np.arange(rows)

    def act(self, observation: np.ndarray) -> np.ndarray:
        self.seen.append(observation)
        return getattr(self, self.task.tags[0])(observation)

    def recall(self, observation: np.ndarray) -> np.ndarray:
        return self.seen[0][:, 1]

    def tmaze(self, observation: np.ndarray) -> np.ndarray:
        turn = np.where(self.seen[0] == 0, NORTH, SOUTH)
        return np.where(observation == JUNCTION, turn, EAST)

    def repeat(self, observation: np.ndarray) -> np.ndarray:
        ago = len(self.seen) - 1 - self.options["k"]
        return self.seen[ago] if ago >= 0 else np.zeros_like(observation)

    def count(self, observation: np.ndarray) -> np.ndarray:
        return sum((seen[:, 0] == observation[:, 1]).astype(int) for seen in self.seen)


@every_task
def test_who_remembers_reaches_the_highest_return(task: Task) -> None:
    N = 32
    envs, oracle = make_vec(task.env_id, N, **task.env_kwargs), Oracle(task, N)
    observation, _ = envs.reset(seed=0)
    returns, done = np.zeros(N), np.zeros(N, bool)
    while not done.all():
        observation, reward, done, truncated, _ = envs.step(oracle.act(observation))
        returns += reward
        assert not truncated.any()
    assert np.allclose(returns, task.high, rtol=0, atol=1e-12)
    assert [task.score(r) for r in (task.low, task.high)] == [0, 1]


@every_script
def test_without_memory_the_best_answer_to_each_observation_is_chance(task: Task) -> None:
    """Fit the best answers to half of the instances and measure them on the other half."""
    N = 4000
    envs = make_vec(task.env_id, N, **task.env_kwargs)
    observation, info = envs.reset(seed=0)
    A = envs.single_action_space.n
    shape = np.atleast_1d(getattr(envs.single_observation_space, "nvec", A))
    counts = np.zeros((2, int(np.prod(shape)), A), int)
    half = np.arange(N) % 2
    done = np.zeros(N, bool)
    while not done.all():
        seen = np.ravel_multi_index(observation.reshape(N, -1).T, shape)
        asked = info["answer"] >= 0
        np.add.at(counts, (half[asked], seen[asked], info["answer"][asked]), 1)
        observation, _, done, _, info = envs.step(np.zeros(N, int))
    fitted, measured = counts
    right = measured[np.arange(len(measured)), fitted.argmax(1)].sum() / measured.sum()
    expected = task.low if "recall" in task.tags else (task.low + 1) / 2
    # Answers within an episode hang together; episodes do not.
    assert abs(right - expected) < 4 * np.sqrt(expected * (1 - expected) / (N / 2))


@pytest.mark.parametrize("length", [1, 3])
def test_without_memory_the_best_walk_through_the_maze_is_chance(length: int) -> None:
    """All deterministic walks that see one observation: none pays more than 1.95."""
    returns = []
    for policy in itertools.product(range(4), repeat=4):
        paid = []
        for seed in range(8):
            env = single("palaestra/TMaze-v0", length=length)
            observation, _ = env.reset(seed=seed)
            total, done = 0.0, False
            while not done:
                observation, reward, terminated, truncated, _ = env.step(policy[observation])
                total, done = total + reward, terminated or truncated
            paid.append((total, env.reset(seed=seed)[0]))
        by_sign = [[total for total, sign in paid if sign == s] for s in (0, 1)]
        assert all(len(set(totals)) == 1 for totals in by_sign)
        returns.append((by_sign[0][0] + by_sign[1][0]) / 2)
    assert max(returns) == pytest.approx(1.95, abs=1e-12)


def test_recall_shows_the_cue_once_then_distractors_then_the_question() -> None:
    env = single("palaestra/Recall-v0", K=5, gap=6)
    first, info = env.reset(seed=1)
    assert first[0] == CUE
    assert first[1] < 5
    assert info["answer"] == -1
    seen = [env.step(0) for _ in range(7)]
    assert [step[0][0] for step in seen] == [WAIT] * 6 + [QUESTION]
    assert all(step[0][1] < 5 for step in seen[:6])
    assert seen[6][0][1] == 5
    assert [step[1] for step in seen] == [0] * 7
    assert seen[6][4]["answer"] == first[1]
    _, reward, terminated, truncated, _ = env.step(first[1])
    assert (reward, terminated, truncated) == (1, True, False)


def test_without_distractors_the_wait_is_blank() -> None:
    env = single("palaestra/Recall-v0", gap=5, distractors=False)
    env.reset(seed=1)
    assert [env.step(0)[0].tolist() for _ in range(5)] == [[WAIT, 4]] * 5


def test_cues_and_distractors_are_uniform_and_independent() -> None:
    N = 8000
    envs = make_vec("palaestra/Recall-v0", N, K=3, gap=1)
    first, _ = envs.reset(seed=0)
    second, *_ = envs.step(np.zeros(N, int))
    pairs = np.bincount(3 * first[:, 1] + second[:, 1], minlength=9) / N
    assert np.abs(pairs - 1 / 9).max() < 4 * np.sqrt(1 / 9 * 8 / 9 / N)


def test_the_maze_is_a_corridor_with_walls_and_a_junction() -> None:
    env = single("palaestra/TMaze-v0", length=2, limit=100)
    sign, info = env.reset(seed=0)
    assert sign in (0, 1)
    walk = [
        (WEST, sign, -0.1),
        (NORTH, sign, -0.1),
        (EAST, CORRIDOR, 0.0),
        (SOUTH, CORRIDOR, -0.1),
        (WEST, sign, 0.0),
        (EAST, CORRIDOR, 0.0),
        (EAST, JUNCTION, 0.0),
        (EAST, JUNCTION, -0.1),
        (WEST, CORRIDOR, 0.0),
        (EAST, JUNCTION, 0.0),
    ]
    for action, seen, paid in walk:
        observation, reward, terminated, truncated, info = env.step(action)
        assert (observation, reward, terminated, truncated) == (seen, paid, False, False)
    assert info["answer"] == (NORTH if sign == 0 else SOUTH)


@pytest.mark.parametrize("right", [True, False])
def test_a_turn_at_the_junction_ends_the_maze(right: bool) -> None:
    env = single("palaestra/TMaze-v0", length=1)
    for seed in range(6):
        sign, _ = env.reset(seed=seed)
        env.step(EAST)
        turn = (NORTH, SOUTH)[sign if right else 1 - sign]
        _, reward, terminated, truncated, _ = env.step(turn)
        assert (reward, terminated, truncated) == (4.0 if right else -0.1, True, False)


def test_the_maze_is_cut_off_at_the_limit_and_a_turn_at_the_limit_is_an_end() -> None:
    env = single("palaestra/TMaze-v0", length=1, limit=2)
    env.reset(seed=0)
    assert [env.step(WEST)[2:4] for _ in range(2)] == [(False, False), (False, True)]
    env.reset()
    assert [env.step(a)[2:4] for a in (EAST, NORTH)] == [(False, False), (True, False)]


def test_repeat_previous_asks_for_the_symbol_of_k_steps_ago() -> None:
    env = single("palaestra/RepeatPrevious-v0", k=2, K=3, T=6)
    observation, info = env.reset(seed=4)
    seen, answers, rewards = [observation], [info["answer"]], []
    for _ in range(6):
        observation, reward, _, _, info = env.step(1)
        seen.append(observation)
        answers.append(info["answer"])
        rewards.append(reward)
    assert answers == [-1, -1, *seen[:4], -1]
    assert rewards == [0, 0, *(0.25 if a == 1 else -0.25 for a in answers[2:6])]


@pytest.mark.parametrize(("K", "copies"), [(2, 3), (3, 2), (13, 16)])
def test_each_symbol_of_the_pack_is_shown_and_asked_as_often_as_it_is_there(
    K: int, copies: int
) -> None:
    options = CountRecallOptions(K=K, copies=copies)
    observations, answers = options.write(np.arange(50, dtype=np.uint64))
    assert observations.shape == (50, options.steps + 1, 2)
    for episode in range(50):
        cards = observations[episode, :-1]
        for column in range(2):
            assert np.bincount(cards[:, column]).tolist() == [copies] * K
        counts = [(cards[: t + 1, 0] == asked).sum() for t, asked in enumerate(cards[:, 1])]
        assert answers[episode].tolist() == counts


def test_every_order_of_a_pack_comes_equally_often() -> None:
    M = 6000
    observations, _ = CountRecallOptions(K=2, copies=2).write(np.arange(M, dtype=np.uint64))
    for column in range(2):
        orders = (observations[:, :4, column] * [8, 4, 2, 1]).sum(1)
        found = np.unique(orders, return_counts=True)[1] / M
        assert len(found) == 6
        assert np.abs(found - 1 / 6).max() < 4 * np.sqrt(1 / 6 * 5 / 6 / M)


@pytest.mark.parametrize(("K", "copies"), [(2, 2), (2, 3), (3, 2)])
def test_the_closed_form_of_counting_without_memory_is_exact(K: int, copies: int) -> None:
    """All orders of both packs: the commonest count behind each observation."""
    pack = [symbol for symbol in range(K) for _ in range(copies)]
    orders = sorted(set(itertools.permutations(pack)))
    counts: dict[tuple[int, int], dict[int, int]] = {}
    for shown in orders:
        for t, symbol in enumerate(shown):
            for asked in range(K):
                # Whatever is shown, the second pack asks for each symbol equally often.
                of = counts.setdefault((symbol, asked), {})
                n = shown[: t + 1].count(asked)
                of[n] = of.get(n, 0) + 1
    total = sum(n for of in counts.values() for n in of.values())
    right = Fraction(sum(max(of.values()) for of in counts.values()), total)
    assert right == (Fraction(1, copies) + Fraction(K - 1, copies + 1)) / K
