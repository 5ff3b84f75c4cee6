"""Laws of rotary positions."""

import math

import torch

from palaestra.kernels._common.rotary import rotate


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
