"""Laws of the reset algebra."""

import torch

from palaestra.kernels._common.resets import positions, segments, starts

RESET = torch.tensor([[0, 0, 1, 0, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)


def test_segments_count_the_episodes_that_began_in_the_window() -> None:
    assert segments(RESET).tolist() == [[0, 0, 1, 1, 2], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]


def test_starts_are_the_first_steps_of_each_segment() -> None:
    assert starts(RESET).tolist() == [[0, 0, 2, 2, 4], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]


def test_positions_go_on_from_the_carried_episode_until_its_end() -> None:
    pos = torch.tensor([7, 3, 0], dtype=torch.int32)
    assert positions(RESET, pos).tolist() == [[7, 8, 0, 1, 0], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]


def test_positions_equal_a_loop_that_counts() -> None:
    generator = torch.Generator().manual_seed(0)
    reset = torch.rand(50, 30, generator=generator) < 0.2
    pos = torch.randint(0, 9, (50,), generator=generator)
    p, rows = pos.clone() - 1, []
    for t in range(30):
        p = torch.where(reset[:, t], 0, p + 1)
        rows.append(p)
    assert torch.equal(positions(reset, pos), torch.stack(rows, 1))
