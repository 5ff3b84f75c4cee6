"""A loop that is stopped, stored and resumed is the loop that never stopped."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sb3_cases import ALGORITHMS, CLIPPED, REPLAY, assert_same, assert_same_rounds, finish, loop_on

from palaestra.runs.store.checkpoints import Checkpoints, load_checkpoint

SHORT: dict[str, Any] = {"env_options": {"max_episode_steps": 20}}

CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    **{f"{name} CartPole": ("CartPole-v1", name, options) for name, options in ALGORITHMS.items()},
    "sb3/ppo continuous": ("Pendulum-v1", "sb3/ppo", CLIPPED | SHORT),
    "sb3/ppo native": ("palaestra/BernoulliBandit-v0", "sb3/ppo", CLIPPED),
    "sb3/dqn n-step": ("CartPole-v1", "sb3/dqn", REPLAY | {"n_steps": 3, "buffer_size": 100}),
    "sb3/dqn native, Dict": (
        "palaestra/TicTacToe-v0",
        "sb3/dqn",
        REPLAY | {"wrappers": ["action-mask"]},
    ),
    "sb3/ppo wrapped": (
        "CartPole-v1",
        "sb3/ppo",
        CLIPPED | {"wrappers": ["normalise-observation", {"name": "frame-stack", "frames": 2}]},
    ),
    "sb3/recurrent-ppo one memory": (
        "CartPole-v1",
        "sb3/recurrent-ppo",
        ALGORITHMS["sb3/recurrent-ppo"] | {"shared_lstm": True, "enable_critic_lstm": False},
    ),
}


def scramble() -> None:
    """Leave the global generators somewhere else."""
    random.seed()
    np.random.seed(random.randrange(2**32))  # noqa: NPY002
    torch.manual_seed(random.randrange(2**32))


@pytest.mark.parametrize("case", CASES)
def test_stored_and_resumed_equals_never_stopped(case: str, tmp_path: Path) -> None:
    env_id, name, options = CASES[case]
    straight = loop_on(env_id, name, **options)
    before = [straight.advance() for _ in range(3)]
    stopped = loop_on(env_id, name, **options)
    assert_same_rounds([stopped.advance() for _ in range(3)], before)
    Checkpoints(tmp_path).save(1, {"loop": stopped.state_dict()}, {})
    finish(stopped)  # what happens after the checkpoint has no part in it
    scramble()
    fresh = loop_on(env_id, name, **options)
    fresh.load_state_dict(load_checkpoint(tmp_path)["loop"])
    scramble()
    assert_same_rounds(finish(fresh), finish(straight))
    assert_same(fresh.state_dict(), straight.state_dict())
    assert_same(fresh.weights(), straight.weights())


@pytest.mark.parametrize("name", ["sb3/ppo", "sb3/dqn"])
def test_a_loop_that_has_trained_can_take_over_a_state(name: str) -> None:
    straight, used = (loop_on("CartPole-v1", name, **ALGORITHMS[name]) for _ in range(2))
    straight.advance()
    state = straight.state_dict()
    finish(used)
    used.load_state_dict(state)
    assert_same_rounds(finish(used), finish(straight))


@pytest.mark.parametrize("name", ["sb3/ppo", "sb3/dqn", "sb3/recurrent-ppo"])
def test_environments_that_are_reset_at_a_checkpoint_need_no_state(
    name: str, tmp_path: Path
) -> None:
    straight = loop_on("CartPole-v1", name, **ALGORITHMS[name])
    for _ in range(2):
        straight.advance()
        straight.reset_environments()
    state = straight.state_dict()
    assert state["environments"] is None
    Checkpoints(tmp_path).save(1, {"loop": state}, {})
    fresh = loop_on("CartPole-v1", name, **ALGORITHMS[name])
    fresh.load_state_dict(load_checkpoint(tmp_path)["loop"])
    assert_same_rounds(finish(fresh), finish(straight))
    assert_same(fresh.state_dict(), straight.state_dict())


def test_a_cut_episode_is_neither_recorded_nor_joined_to_the_next() -> None:
    loop = loop_on("Pendulum-v1", "sb3/ppo", env_options={"max_episode_steps": 24}, **CLIPPED)
    loop.advance()  # 16 steps of each environment
    loop.reset_environments()
    lengths = [found.episodes.length.tolist() for found in finish(loop)]
    assert lengths == [[], [24, 24], [24, 24], [], [24, 24]]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_same_seed_is_the_same_run_and_another_is_another(name: str) -> None:
    def train(seed: int) -> Any:
        scramble()
        loop = loop_on("CartPole-v1", name, seed=seed, **ALGORITHMS[name])
        return loop, [loop.advance() for _ in range(4)]

    (one, rounds), (two, same_rounds), (other, _) = train(3), train(3), train(4)
    assert_same_rounds(rounds, same_rounds)
    assert_same(one.state_dict(), two.state_dict())
    assert any(
        (x != y).any()
        for x, y in zip(one.weights().values(), other.weights().values(), strict=True)
    )


def test_what_others_draw_between_rounds_changes_nothing() -> None:
    alone, among_others = (loop_on("CartPole-v1", "sb3/dqn", **ALGORITHMS["sb3/dqn"]) for _ in "ab")
    rounds = [alone.advance() for _ in range(4)]
    for expected in rounds:
        scramble()
        assert_same_rounds([among_others.advance()], [expected])


def test_the_global_generators_are_left_as_they_were() -> None:
    def draw() -> list[float]:
        return [random.random(), np.random.random(), float(torch.rand(()))]  # noqa: NPY002

    def seed() -> None:
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)

    seed()
    expected = [draw(), draw()]
    seed()
    loop = loop_on("CartPole-v1", "sb3/dqn", **ALGORITHMS["sb3/dqn"])
    found = [draw()]
    loop.advance()
    assert [*found, draw()] == expected
