"""Episode resets: what every operator derives from the mask of first steps, on the device.

`reset[b, t]` true says that step t is the first of an episode. Segment 0 is the episode that was
already running before the window.
"""

import torch
from torch import Tensor


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
