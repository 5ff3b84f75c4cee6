from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from palaestra.envs.wrappers.history import HistoryObservation, step_space
from palaestra.errors import UserError


class Scripted(gymnasium.Env):
    """Observations are drawn from a space; episodes have the given lengths in turn."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: spaces.Space, lengths: tuple[int, ...] = (3, 7)) -> None:
        self.observation_space, self.lengths, self.episode = space, lengths, -1

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.episode, self.t = self.episode + 1, 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.t += 1
        over = self.t == self.lengths[self.episode % len(self.lengths)]
        return self.observation_space.sample(), 0.0, over, False, {}


SPACES = [
    spaces.Box(-1, 1, (3,)),
    spaces.Box(0, 255, (9, 9), np.uint8),
    spaces.Box(0, 255, (9, 9, 3), np.uint8),
    spaces.Box(1, 2, (), np.float64),
    spaces.Discrete(4, start=2),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiBinary(5),
    spaces.Dict(position=spaces.Box(-1, 1, (2,)), key=spaces.Discrete(3)),
]


def vector(space: spaces.Space, observation: Any) -> np.ndarray:
    is_image = len(space.shape or ()) == 3
    return observation if is_image else spaces.utils.flatten(space, observation)


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_history_is_the_end_of_all_observations_since_the_reset(
    space: spaces.Space, length: int
) -> None:
    # Both sample from one space object: an episode is taken twice, from the same seed.
    env, bare = HistoryObservation(Scripted(space), length), Scripted(space)
    for seed in range(3):
        taken, over = [env.reset(seed=seed)[0]], False
        while not over:
            observation, _, over, _, _ = env.step(0)
            taken.append(observation)
        seen = [vector(space, bare.reset(seed=seed)[0])]
        seen += [vector(space, bare.step(0)[0]) for _ in taken[1:]]
        for t, observation in enumerate(taken):
            assert env.observation_space.contains(observation)
            expected = [seen[0]] * (length - 1) + seen[: t + 1]
            assert (observation["history"] == np.stack(expected[-length:])).all()
            marks = [0] * (length - 1) + [1] + [0] * t
            assert observation["first"].tolist() == marks[-length:]


@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
def test_gymnasiums_checker_accepts_it() -> None:
    check_env(HistoryObservation(Scripted(spaces.Box(-1, 1, (3,))), 4), skip_render_check=True)


def test_an_observation_is_not_changed_by_later_steps() -> None:
    env = HistoryObservation(Scripted(spaces.Box(-1, 1, (3,))), 4)
    observation, _ = env.reset(seed=0)
    copies = {key: value.copy() for key, value in observation.items()}
    env.step(0)
    assert all((observation[key] == copies[key]).all() for key in copies)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_the_space_of_one_step_is_read_off_a_history(space: spaces.Space) -> None:
    step = step_space(HistoryObservation(Scripted(space), 4).observation_space)
    assert step is not None
    assert step.contains(vector(space, space.sample()))
    assert step_space(space) is None


def test_other_dicts_are_no_histories() -> None:
    box, marks = spaces.Box(-1, 1, (4, 3)), spaces.MultiBinary(4)
    assert step_space(spaces.Dict(history=box, first=marks)) == spaces.Box(-1, 1, (3,))
    for space in (
        spaces.Dict(history=box),
        spaces.Dict(history=box, first=marks, more=marks),
        spaces.Dict(history=box, first=spaces.MultiBinary(3)),
        spaces.Dict(history=spaces.Box(-1, 1, (4,)), first=marks),
        spaces.Dict(history=box, first=spaces.Discrete(4)),
        spaces.Dict(history=spaces.Discrete(4), first=marks),
    ):
        assert step_space(space) is None


@pytest.mark.parametrize("length", [0, -1, 2.0, True, "4"])
def test_a_length_that_is_no_positive_integer_is_refused(length: Any) -> None:
    with pytest.raises(UserError, match="length"):
        HistoryObservation(Scripted(spaces.Box(-1, 1, (3,))), length)


def test_observations_without_a_fixed_size_are_refused() -> None:
    with pytest.raises(UserError, match="observation_space"):
        HistoryObservation(Scripted(spaces.Sequence(spaces.Discrete(2))), 4)
