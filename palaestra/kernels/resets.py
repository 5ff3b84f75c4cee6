"""Episode resets: what every operator derives from the mask of first steps, on the device.

`reset[b, t]` true says that step t is the first of an episode. Segment 0 is the episode that was
already running before the window.
"""

import torch
from torch import Tensor

from palaestra.kernels._common.runtime import asking_is_free


def segments(reset: Tensor) -> Tensor:
    """Return the number of each step's segment, int64 `[B, T]`, from `reset [B, T]`."""
    return reset.cumsum(1)


def starts(reset: Tensor) -> Tensor:
    """Return the index of the first step of each step's segment, int64 `[B, T]`.

    In segment 0 it is 0 and says nothing: that episode began before the window.
    """
    return (torch.arange(reset.shape[1], device=reset.device) * reset).cummax(1).values


def positions(reset: Tensor, pos: Tensor) -> Tensor:
    """Return each step's position in its episode, int64 `[B, T]`.

    Args:
      reset: bool `[B, T]`.
      pos: `[B]`, steps of the running episode before the window.
    """
    t = torch.arange(reset.shape[1], device=reset.device)
    carried = (segments(reset) == 0) * pos.unsqueeze(1)
    return t - starts(reset) + carried


def resolve_reset(
    reset: Tensor | None,
    cu_seqlens: Tensor | None,
    batch: int,
    length: int,
    device: torch.device,
) -> Tensor:
    """Return the mask of first steps, bool `[batch, length]`.

    Args:
      reset: bool or uint8 `[batch, length]`, or None.
      cu_seqlens: int32 or int64 `[N + 1]`, where each of N packed episodes begins, and `length`
        last; needs `batch` 1. Episodes may be empty: they leave no trace. Elsewhere than on CPU
        its values are checked on the device, where a wrong one ends the program.
      batch: rows.
      length: steps.
      device: where the mask has to be.

    Raises:
      ValueError: both given, or a type, shape or device that does not fit.
    """
    if reset is not None and cu_seqlens is not None:
        raise ValueError("reset, cu_seqlens: one of them is accepted, not both.")
    if cu_seqlens is not None:
        return _packed(cu_seqlens, batch, length, device)
    if reset is None:
        return torch.zeros(batch, length, dtype=torch.bool, device=device)
    if reset.dtype not in (torch.bool, torch.uint8) or reset.shape != (batch, length):
        raise ValueError(
            f"reset: {reset.dtype} {list(reset.shape)} is not bool or uint8 {[batch, length]}."
        )
    if reset.device != device:
        raise ValueError(f"reset: it is on {reset.device}, the others are on {device}.")
    return reset.bool()


def _packed(cu_seqlens: Tensor, batch: int, length: int, device: torch.device) -> Tensor:
    if cu_seqlens.dtype not in (torch.int32, torch.int64) or cu_seqlens.ndim != 1:
        found = f"{cu_seqlens.dtype} {list(cu_seqlens.shape)}"
        raise ValueError(f"cu_seqlens: {found} is not int32 or int64 [N + 1].")
    if batch != 1:
        raise ValueError(f"cu_seqlens: packed episodes need one row, not {batch}.")
    if cu_seqlens.device != device:
        raise ValueError(f"cu_seqlens: it is on {cu_seqlens.device}, the others are on {device}.")
    _check_bounds(cu_seqlens, length)
    # An empty episode at the end begins at `length`: one slot more takes it.
    first = torch.zeros(length + 1, dtype=torch.bool, device=device)
    return first.index_fill(0, cu_seqlens[:-1].long(), True)[:length].unsqueeze(0)


def _check_bounds(cu_seqlens: Tensor, length: int) -> None:
    accepted = f"[0, .., {length}] that never falls"
    if asking_is_free(cu_seqlens):
        bounds = cu_seqlens.tolist()
        if not bounds or bounds[0] != 0 or bounds[-1] != length or bounds != sorted(bounds):
            raise ValueError(f"cu_seqlens: {bounds} is not {accepted}.")
        return
    # To ask would wait for the device.
    rises = (cu_seqlens.diff() >= 0).all()
    fits = rises & (cu_seqlens[0] == 0) & (cu_seqlens[-1] == length)
    torch._assert_async(fits, f"cu_seqlens: it is not {accepted}.")
