"""Histories and stacked frames of vector environments equal those of each row alone."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from env_cases import NextStepWalks, Walk
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation

from palaestra.envs import make_vec
from palaestra.envs.recorded import RowsVectorEnv
from palaestra.envs.rows import final_rows
from palaestra.envs.trees import equal_trees, map_tree
from palaestra.envs.wrappers import HistoryObservation, VectorFrameStack, VectorHistory
from palaestra.errors import UserError

N = 3


class Shown(gymnasium.Env[Any, Any]):
    """Draws its observations from a space; episodes end at random."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: spaces.Space) -> None:
        self.observation_space = space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        return self._draw(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        return self._draw(), 0.0, bool(self.np_random.random() < 0.2), False, {}

    def _draw(self) -> Any:
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        return self.observation_space.sample()


SPACES = [
    spaces.Box(-1, 1, (3,)),
    spaces.Box(0, 255, (9, 9, 3), np.uint8),
    spaces.Box(0, 255, (9, 9), np.uint8),
    spaces.Discrete(4, start=2),
    spaces.MultiDiscrete([2, 3]),
    spaces.Dict(position=spaces.Box(-1, 1, (2,)), key=spaces.Discrete(3)),
]


def compare(envs: Any, alone: Any, steps: int = 60) -> int:
    """Compare two vector environments through observations and final ones; return the ends."""
    assert envs.single_observation_space == alone.single_observation_space
    ends = 0
    one, other = envs.reset(seed=3)[0], alone.reset(seed=3)[0]
    for t in range(steps):
        assert equal_trees(one, other)
        one, _, over, _, info = envs.step(np.full(N, t % 2))
        other, *_, other_info = alone.step(np.full(N, t % 2))
        if over.any():
            rows = np.flatnonzero(over)
            ends += len(rows)
            assert equal_trees(final_rows(info, rows), final_rows(other_info, rows))
    return ends


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_history_of_all_rows_equals_that_of_each_row(space: spaces.Space) -> None:
    envs = VectorHistory(RowsVectorEnv([lambda: Shown(space)] * N), length=4)
    alone = RowsVectorEnv([lambda: HistoryObservation(Shown(space), 4)] * N)
    assert compare(envs, alone) > 10


def test_a_history_of_a_native_environment_equals_that_of_its_rows() -> None:
    # Actions 0 and 1 in turn: most of them are illegal, so that games end at many lengths.
    name = "palaestra/TicTacToe-v0"
    options = {"illegal_action": "random"}
    envs = make_vec(name, N, [{"name": "history", "length": 3}], **options)
    plain = make_vec(name, N, **options)
    seen, rows = [envs.reset(seed=0)[0]], [plain.reset(seed=0)[0]]
    ended = 0
    for _ in range(20):
        observation, *_, info = envs.step(np.zeros(N, int))
        bare, _, over, _, bare_info = plain.step(np.zeros(N, int))
        now = spaces.utils.flatten(plain.single_observation_space, bare[0])
        assert (observation["history"][0, -1] == now).all()
        for row in np.flatnonzero(over):
            ended += 1
            last = spaces.utils.flatten(plain.single_observation_space, bare_info["final_obs"][row])
            assert (info["final_obs"]["history"][row, -1] == last).all()
            assert observation["first"][row].tolist() == [0, 0, 1]
        seen.append(observation)
        rows.append(bare)
    assert ended


@pytest.mark.parametrize("space", [SPACES[0], SPACES[2]], ids=str)
def test_stacked_frames_equal_gymnasiums_of_each_row(space: spaces.Space) -> None:
    envs = VectorFrameStack(RowsVectorEnv([lambda: Shown(space)] * N), frames=4)
    alone = RowsVectorEnv([lambda: FrameStackObservation(Shown(space), 4)] * N)
    assert compare(envs, alone) > 10


@pytest.mark.parametrize(("shape", "axis"), [((9, 8, 3), -1), ((3, 9, 8), 1)])
def test_images_stay_images_with_more_channels(shape: tuple[int, ...], axis: int) -> None:
    space = spaces.Box(0, 255, shape, np.uint8)
    envs = VectorFrameStack(RowsVectorEnv([lambda: Shown(space)] * N), frames=2)
    bare = RowsVectorEnv([lambda: Shown(space)] * N)
    before, _ = bare.reset(seed=0)
    envs.reset(seed=0)
    for _ in range(20):
        now, _, over, _, bare_info = bare.step(np.zeros(N, int))
        seen, *_, info = envs.step(np.zeros(N, int))
        assert envs.observation_space.contains(seen)
        for row in range(N):
            pair = (now[row], now[row]) if over[row] else (before[row], now[row])
            assert (seen[row] == np.concatenate(pair, axis=axis if axis < 0 else 0)).all()
            if over[row]:
                pair = before[row], bare_info["final_obs"][row]
                final = np.concatenate(pair, axis=axis if axis < 0 else 0)
                assert (info["final_obs"][row] == final).all()
        before = now


@pytest.mark.parametrize("wrap", [VectorHistory, VectorFrameStack])
def test_under_a_next_step_autoreset_an_episode_begins_one_step_after_the_end(wrap: Any) -> None:
    bare, envs = NextStepWalks(N), wrap(NextStepWalks(N))
    frames = [[x] for x in bare.reset(seed=1)[0]]
    envs.reset(seed=1)
    over = np.zeros(N, bool)
    for _ in range(50):
        now, _, ended, *_ = bare.step(np.zeros(N, int))
        seen, *_ = envs.step(np.zeros(N, int))
        stacked = seen["history"] if isinstance(seen, dict) else seen
        for row in range(N):
            frames[row] = [now[row]] if over[row] else [*frames[row], now[row]]
            k = min(3, len(frames[row]))
            assert (stacked[row, -k:] == np.stack(frames[row][-k:])).all()
        over = ended


@pytest.mark.parametrize("wrap", [VectorHistory, VectorFrameStack])
def test_a_row_that_is_reset_alone_begins_alone(wrap: Any) -> None:
    envs = wrap(RowsVectorEnv([lambda: Walk(terminates=False)] * N))
    envs.reset(seed=0)
    before, *_ = envs.step(np.zeros(N, int))
    after, _ = envs.reset(options={"reset_mask": np.array([False, True, False])})
    others = [0, 2]
    if wrap is VectorHistory:
        assert (after["first"][1, -1], after["first"][0, -2]) == (1, 1)
        before, after = before["history"], after["history"]
    assert (after[1] == after[1, 0]).all()
    assert not (after[1, 0] == before[1, -1]).all()
    assert (after[others] == before[others]).all()


def test_an_observation_that_was_shown_is_not_changed_by_later_steps() -> None:
    for wrap in (VectorHistory, VectorFrameStack):
        envs = wrap(RowsVectorEnv([Walk] * N))
        shown, _ = envs.reset(seed=0)
        kept = map_tree(np.copy, shown)
        envs.step(np.zeros(N, int))
        assert equal_trees(shown, kept)


def test_frames_of_numbers_without_an_array_are_refused() -> None:
    with pytest.raises(UserError, match="has no frames to stack; accepted: Box"):
        make_vec("Taxi-v4", 2, ["frame-stack"])
