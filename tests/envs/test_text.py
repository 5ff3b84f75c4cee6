"""Texts: arrays of strings, final observations and states included."""

import copy
from typing import Any

import gymnasium
import numpy as np
import pytest
from env_cases import Story
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from palaestra.envs.recorded import RowsVectorEnv
from palaestra.envs.rows import final_rows
from palaestra.envs.trees import equal_trees, text_array
from palaestra.envs.wrappers import VectorNormaliseReward
from palaestra.envs.wrappers.text import TextArrays

N = 3


def texts(observation: Any, inside: bool) -> np.ndarray:
    return observation["text"] if inside else observation


@pytest.mark.parametrize("inside", [False, True])
def test_rows_of_texts_are_arrays_of_strings_as_long_as_they_are(inside: bool) -> None:
    envs = RowsVectorEnv([lambda: Story(inside)] * N)
    rows = [Story(inside) for _ in range(N)]
    observation, _ = envs.reset(seed=0)
    shown = [row.reset(seed=n)[0] for n, row in enumerate(rows)]
    assert texts(observation, inside).dtype == object
    assert texts(observation, inside).tolist() == [texts(x, inside) for x in shown]
    ended = 0
    for _ in range(3):
        observation, _, over, _, info = envs.step(np.zeros(N, int))
        for n in np.flatnonzero(~over):
            one = rows[n].step(0)[0]
            assert texts(observation, inside)[n] == texts(one, inside)
            assert type(texts(observation, inside)[n]) is str
        if over.any():
            ended += over.sum()
            found = np.flatnonzero(over)
            final = final_rows(info, found)
            last = [texts(rows[n].step(0)[0], inside) for n in found]
            assert texts(final, inside).tolist() == last
            assert texts(final, inside).dtype == object
            break
    assert ended
    if inside:
        assert observation["t"].dtype == np.int64


def test_an_episode_of_texts_continues_exactly() -> None:
    envs, fresh = (RowsVectorEnv([lambda: Story(True)] * N) for _ in range(2))
    envs.reset(seed=1)
    envs.step(np.zeros(N, int))
    fresh.set_state(copy.deepcopy(envs.get_state()))
    for _ in range(9):
        assert equal_trees(envs.step(np.zeros(N, int)), fresh.step(np.zeros(N, int)))


def test_wrappers_of_rewards_leave_texts_alone() -> None:
    envs = VectorNormaliseReward(RowsVectorEnv([Story] * N))
    observation, _ = envs.reset(seed=0)
    assert observation.tolist() == [""] * N


@pytest.mark.parametrize("inside", [False, True])
def test_tuples_of_foreign_vector_environments_become_arrays(inside: bool) -> None:
    envs = TextArrays(
        SyncVectorEnv([lambda: Story(inside)] * N, autoreset_mode=AutoresetMode.SAME_STEP)
    )
    observation, _ = envs.reset(seed=0)
    assert texts(observation, inside).dtype == object
    observation, *_ = envs.step(np.zeros(N, int))
    assert texts(observation, inside).tolist() == ["on"] * N
    final: dict[str, Any] = {}
    for _ in range(5):
        *_, over, _, info = envs.step(np.zeros(N, int))
        if over.any():
            final = final_rows(info, np.flatnonzero(over))
    assert texts(final, inside).dtype == object


def test_a_longer_text_written_into_an_array_is_not_cut_off() -> None:
    array = text_array(["a", "b"])
    array[0] = "a long text"
    assert array[0] == "a long text"


def test_texts_may_be_actions() -> None:
    class Echo(Story):
        """Shows the action."""

        def __init__(self) -> None:
            super().__init__()
            self.action_space = gymnasium.spaces.Text(100, min_length=0)  # type: ignore[assignment]

        def step(self, action: Any) -> Any:
            return (action, *super().step(0)[1:])

    envs = RowsVectorEnv([Echo] * 2)
    envs.reset(seed=0)
    observation, *_ = envs.step(text_array(["yes", "no"]))
    assert observation.tolist() == ["yes", "no"]
