import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Text

from palaestra.agents.base import make
from palaestra.errors import UserError

ANYTHING = Box(0, 1, (2,), np.float32)


def draw(space: Space, N: int, mask: np.ndarray | None = None) -> np.ndarray:
    observation = np.zeros((N, 2), np.float32)
    actor = make("random", ANYTHING, space).make_actor()
    seen = observation if mask is None else {"observation": observation, "action_mask": mask}
    rng, reset = np.random.default_rng(0), np.ones(N, bool)
    return actor.act(seen, actor.initial_state(N), reset, rng, "sample")[0]


@pytest.mark.parametrize(
    "space",
    [
        Discrete(4),
        Discrete(3, start=-1),
        MultiDiscrete([2, 5]),
        MultiDiscrete([[2, 3], [4, 5]]),
        Box(-2, 3, (2, 2), np.float32),
        Box(0, 255, (3,), np.uint8),
        Box(np.array([-np.inf, 0, -np.inf]), np.array([np.inf, np.inf, 1]), dtype=np.float64),
    ],
)
def test_every_draw_lies_in_the_space(space: Space) -> None:
    actions = draw(space, 500)
    assert all(space.contains(space.dtype.type(action)) for action in actions)


def test_discrete_draws_are_uniform() -> None:
    counts = np.bincount(draw(Discrete(4), 20_000), minlength=4)
    assert (np.abs(counts - 5_000) < 4 * np.sqrt(20_000 * 3 / 16)).all()


def test_integer_boxes_reach_both_bounds() -> None:
    assert set(draw(Box(3, 5, (1,), np.int64), 200).ravel().tolist()) == {3, 4, 5}


def test_only_legal_actions_are_drawn_and_all_of_them() -> None:
    mask = np.tile(np.array([1, 0, 1, 0], np.int8), (20_000, 1))
    counts = np.bincount(draw(Discrete(4), 20_000, mask), minlength=4)
    assert counts[1] == counts[3] == 0
    assert abs(counts[0] - 10_000) < 4 * np.sqrt(5_000)


def test_the_mask_of_a_multi_discrete_space_is_its_components_one_after_the_other() -> None:
    mask = np.tile(np.array([0, 1, 1, 0, 0], np.int8), (50, 1))
    assert (draw(MultiDiscrete([2, 3]), 50, mask) == [1, 0]).all()


@pytest.mark.parametrize("space", [MultiBinary(3), Text(4), Dict(a=Discrete(2))])
def test_other_action_spaces_are_refused(space: Space) -> None:
    with pytest.raises(UserError, match="Discrete, MultiDiscrete or Box"):
        make("random", ANYTHING, space)
