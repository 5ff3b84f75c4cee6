"""Short causal convolution over time that does not see past the start of an episode."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from palaestra.kernels.resets import segments


class ShortConvolution(nn.Module):
    """Causal convolution of each channel with itself, which sees its own episode alone.

        y_t = sum_j w_j x_{t-j}   over 0 <= j < size with t-j in the episode of t

    The cache holds the inputs before the window, zeros where they belong to no running episode.

    Args:
      channels: of input and output.
      size: taps, the present step included.
    """

    def __init__(self, channels: int, size: int = 4) -> None:
        super().__init__()
        self.channels, self.size = channels, size
        self.weight = nn.Parameter(torch.empty(size, channels))
        nn.init.uniform_(self.weight, -(size**-0.5), size**-0.5)

    def initial_cache(self, batch: int) -> Tensor:
        """Return zeros, `[B, size - 1, channels]`."""
        return self.weight.new_zeros(batch, self.size - 1, self.channels)

    def forward(self, x: Tensor, cache: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
        """Read a window.

        Args:
          x: `[B, T, channels]`.
          cache: `[B, size - 1, channels]`, oldest first.
          reset: bool `[B, T]`.

        Returns:
          `y`, of x's shape, and the cache after the window.
        """
        padded = torch.cat([cache, x], 1)  # (B, size - 1 + T, C)
        seg = pad(segments(reset), (self.size - 1, 0))  # the cache belongs to segment 0
        y: Tensor = _Convolution.apply(padded, seg, self.weight)
        T = x.shape[1]
        ended = seg[:, T:] != seg[:, -1:]
        return y, padded[:, T:].masked_fill(ended.unsqueeze(2), 0)

    def step(self, x: Tensor, cache: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
        """Read one step: `x [B, channels]`, `reset [B]` -> `y`, cache."""
        cache = cache.masked_fill(reset[:, None, None], 0)
        window = torch.cat([cache, x.unsqueeze(1)], 1)  # (B, size, C), oldest first
        return (window * self.weight.flip(0)).sum(1), window[:, 1:]


class _Convolution(torch.autograd.Function):
    """`(x [B, size - 1 + T, C], seg [B, size - 1 + T], weight [size, C]) -> y [B, T, C]`.

    dx_{t-j} = sum_j w_j dy_t,   dw_j = sum_t dy_t x_{t-j}      over t with t-j in t's episode
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, seg: Tensor, weight: Tensor) -> Tensor:
        """Return y."""
        ctx.save_for_backward(x, seg, weight)
        y = x[:, len(weight) - 1 :] * weight[0]
        for j, steps, other in _lags(seg, len(weight)):
            # Filled before the product: a stale NaN times 0 would still be NaN.
            y.addcmul_(x[:, steps].masked_fill(other, 0), weight[j])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x and weight."""
        x, seg, weight = ctx.saved_tensors
        past = len(weight) - 1
        dx, dw = torch.zeros_like(x), torch.empty_like(weight)
        dx[:, past:] = dy * weight[0]
        dw[0] = (dy * x[:, past:]).sum((0, 1))
        for j, steps, other in _lags(seg, len(weight)):
            dy_j = dy.masked_fill(other, 0)
            dx[:, steps].addcmul_(dy_j, weight[j])
            dw[j] = dy_j.mul_(x[:, steps]).sum((0, 1))
        return dx, None, dw


def _lags(seg: Tensor, size: int) -> Iterator[tuple[int, slice, Tensor]]:
    """Yield each lag j > 0, the steps t-j, and where they belong to another episode `[B, T, 1]`."""
    past = size - 1
    T = seg.shape[1] - past
    for j in range(1, size):
        steps = slice(past - j, past - j + T)
        yield j, steps, (seg[:, steps] != seg[:, past:]).unsqueeze(2)
