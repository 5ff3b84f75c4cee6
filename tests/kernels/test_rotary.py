"""Laws of rotary positions."""

import math

import pytest
import torch

from palaestra.kernels.rotary import KEPT_POSITIONS, rotate, turn, turns


def test_rotation_keeps_lengths_and_depends_on_distance_alone() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 3, 8, dtype=torch.float64)
    at = torch.tensor
    torch.testing.assert_close(rotate(q, at([77])).norm(dim=-1), q.norm(dim=-1))
    assert torch.equal(rotate(q, at([0])), q)
    near = (rotate(q, at([5])) * rotate(k, at([2]))).sum(-1)
    far = (rotate(q, at([1005])) * rotate(k, at([1002]))).sum(-1)
    torch.testing.assert_close(near, far, rtol=0, atol=1e-12)
    assert (near - (q * k).sum(-1)).abs().max() > 0.1


def test_the_fastest_pair_turns_by_one_radian_a_step() -> None:
    x = torch.zeros(1, 1, 4, dtype=torch.float64)
    x[..., 0] = 1
    turned = rotate(x, torch.tensor([3]))[0, 0]
    torch.testing.assert_close(
        turned, torch.tensor([math.cos(3), 0, math.sin(3), 0]).double(), rtol=0, atol=1e-7
    )


def test_half_precision_keeps_far_positions_apart() -> None:
    torch.manual_seed(0)
    x, position = torch.randn(300, 2, 8).bfloat16(), torch.arange(3000, 3300).unsqueeze(1)
    turned = rotate(x, position)
    assert turned.dtype == torch.bfloat16
    assert torch.equal(turned, rotate(x.float(), position).bfloat16())


@pytest.mark.parametrize("first", [0, KEPT_POSITIONS - 2])
def test_turns_rotate_all_heads_of_a_step_and_back(first: int) -> None:
    x = torch.randn(5, 3, 8, dtype=torch.float64)
    position = torch.arange(first, first + 5)
    at = turns(position, 3, 8, 10_000.0, torch.float64)
    turned = turn(x, at)
    torch.testing.assert_close(turned, rotate(x, position.unsqueeze(1)), rtol=0, atol=1e-14)
    torch.testing.assert_close(turn(turned, at, -1), x, rtol=0, atol=1e-14)


def test_kept_turns_can_be_used_in_a_backward_pass_after_inference() -> None:
    position, x = torch.arange(3), torch.randn(3, 5, 4, requires_grad=True)
    with torch.inference_mode():
        turns(position, 5, 4, 10_000.0, torch.float32)
    turn(x, turns(position, 5, 4, 10_000.0, torch.float32)).sum().backward()
    assert x.grad is not None


def test_without_a_base_nothing_turns() -> None:
    x = torch.randn(3, 5, 3)
    assert turn(x, turns(torch.arange(3), 5, 3, None, torch.float32)) is x
