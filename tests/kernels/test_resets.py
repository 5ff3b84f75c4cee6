"""Laws of the reset algebra, and of the ways to say where episodes begin."""

import pytest
import torch
from torch import Tensor

from palaestra.kernels.resets import positions, resolve_reset, segments, starts

CPU = torch.device("cpu")
RESET = torch.tensor([[0, 0, 1, 0, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)


def test_segments_count_the_episodes_that_began_in_the_window() -> None:
    assert segments(RESET).tolist() == [[0, 0, 1, 1, 2], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]


def test_starts_are_the_first_steps_of_each_segment() -> None:
    assert starts(RESET).tolist() == [[0, 0, 2, 2, 4], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]


def test_positions_continue_the_carried_episode_until_its_end() -> None:
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


def test_without_any_the_mask_is_empty() -> None:
    assert not resolve_reset(None, None, 2, 3, CPU).any()
    assert resolve_reset(None, None, 2, 3, CPU).shape == (2, 3)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
def test_a_mask_is_returned_as_bool(dtype: torch.dtype) -> None:
    mask = torch.tensor([[0, 1, 1], [1, 0, 0]], dtype=dtype)
    found = resolve_reset(mask, None, 2, 3, CPU)
    assert found.dtype == torch.bool
    assert torch.equal(found, mask.bool())


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize(
    ("cu_seqlens", "firsts"),
    [([0, 6], [0]), ([0, 2, 5, 6], [0, 2, 5]), ([0, 0, 2, 2, 2, 6, 6, 6], [0, 2])],
    ids=["one", "three", "empty ones"],
)
def test_packed_episodes_begin_where_cu_seqlens_says(
    cu_seqlens: list[int], firsts: list[int], dtype: torch.dtype
) -> None:
    found = resolve_reset(None, torch.tensor(cu_seqlens, dtype=dtype), 1, 6, CPU)
    assert found.nonzero()[:, 1].tolist() == firsts
    assert found.shape == (1, 6)


@pytest.mark.parametrize(
    ("reset", "cu_seqlens", "batch", "message"),
    [
        (torch.zeros(1, 6, dtype=torch.bool), torch.tensor([0, 6]), 1, "reset, cu_seqlens"),
        (torch.zeros(1, 6), None, 1, "reset"),
        (torch.zeros(1, 5, dtype=torch.bool), None, 1, "reset"),
        (torch.zeros(1, 6, dtype=torch.bool, device="meta"), None, 1, "reset"),
        (None, torch.tensor([0.0, 6.0]), 1, "cu_seqlens"),
        (None, torch.tensor([[0, 6]]), 1, "cu_seqlens"),
        (None, torch.tensor([0, 6]), 2, "cu_seqlens"),
        (None, torch.tensor([0, 6], device="meta"), 1, "cu_seqlens"),
    ],
)
def test_what_does_not_fit_is_named(
    reset: Tensor | None, cu_seqlens: Tensor | None, batch: int, message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}:"):
        resolve_reset(reset, cu_seqlens, batch, 6, CPU)


@pytest.mark.parametrize("bounds", [[0, 4, 2, 6], [1, 6], [0, 5], [0, 7], [-1, 6], [0], []])
def test_bounds_that_do_not_cover_the_row_are_named(bounds: list[int]) -> None:
    with pytest.raises(ValueError, match=r"^cu_seqlens: .* is not \[0, .., 6\] that never falls"):
        resolve_reset(None, torch.tensor(bounds, dtype=torch.int64), 1, 6, CPU)
