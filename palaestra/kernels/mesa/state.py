"""The memory of Mesa: two decayed sums over the running episode."""

from dataclasses import dataclass

import torch
from torch import Tensor

from palaestra.experience.state import State


@dataclass
class MesaState(State):
    """Sums over the steps of the running episode, float32, or float64 for float64 inputs."""

    hkk: Tensor
    """`[B, H, K, K]`, symmetric: decayed sum of beta k k^T."""
    hkv: Tensor
    """`[B, H, K, V]`: decayed sum of beta k v^T."""


@dataclass
class MesaResiduals:
    """How far the solves are from their solution: |b - A x| / |b| of each step, `[B, T, H]`.

    Given to the operator, it is filled: `forward` by the call, `backward` by the backward pass.
    """

    forward: Tensor | None = None
    backward: Tensor | None = None


def empty_state(
    batch: int, heads: int, key_width: int, value_width: int, *, like: Tensor | None = None
) -> MesaState:
    """Return the state before the first step; `like` gives type (float32 at least) and device."""
    like = torch.empty(0) if like is None else like
    dtype = torch.promote_types(like.dtype, torch.float32)
    return MesaState(
        like.new_zeros(batch, heads, key_width, key_width, dtype=dtype),
        like.new_zeros(batch, heads, key_width, value_width, dtype=dtype),
    )
