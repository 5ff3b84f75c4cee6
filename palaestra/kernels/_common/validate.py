"""Checks of arguments and defaults; ValueError names the argument and what is accepted."""

import torch
from torch import Tensor


def check_layout(name: str, x: Tensor, layout: str) -> None:
    """Check that `x` is a float tensor with the axes of `layout`, e.g. `[B, T, H, K]`."""
    if x.ndim != layout.count(",") + 1 or not x.is_floating_point():
        raise ValueError(f"{name}: {describe(x)} is not a float tensor {layout}.")


def check_tensor(
    name: str,
    x: Tensor,
    shape: tuple[int, ...],
    dtypes: torch.dtype | tuple[torch.dtype, ...],
    device: torch.device,
) -> None:
    """Check shape, type (one of `dtypes`) and device of `x`."""
    fits = x.dtype is dtypes or (isinstance(dtypes, tuple) and x.dtype in dtypes)
    if not fits or x.shape != shape:
        dtypes = (dtypes,) if isinstance(dtypes, torch.dtype) else dtypes
        accepted = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise ValueError(f"{name}: {describe(x)} is not {accepted} {list(shape)}.")
    if x.device != device:
        raise ValueError(f"{name}: it is on {x.device}, the others are on {device}.")


def check_qkv(q: Tensor, k: Tensor, v: Tensor, layout: str) -> None:
    """Check queries, keys and values; `layout` is the queries', values have V for their K."""
    check_layout("q", q, layout)
    check_layout("v", v, layout.replace("K", "V"))
    check_tensor("k", k, q.shape, q.dtype, q.device)
    check_tensor("v", v, (*q.shape[:-1], v.shape[-1]), q.dtype, q.device)


def scale_of(scale: float | None, q: Tensor) -> float:
    """Return the scale, by default the width of the queries `[..., D]` to the power of -1/2."""
    return q.shape[-1] ** -0.5 if scale is None else scale


def check_reset(reset: Tensor | None, batch: int, device: torch.device) -> Tensor:
    """Return the mask of one step, bool `[batch]`; None is no reset."""
    if reset is None:
        return torch.zeros(batch, dtype=torch.bool, device=device)
    check_tensor("reset", reset, (batch,), (torch.bool, torch.uint8), device)
    return reset if reset.dtype is torch.bool else reset.bool()


def check_chunk_size(chunk_size: int) -> None:
    """Check that `chunk_size` is a power of two from 16 on, as products in blocks need."""
    if chunk_size < 16 or chunk_size & (chunk_size - 1):
        raise ValueError(f"chunk_size: {chunk_size} is not a power of two from 16 on.")


def is_empty(x: Tensor) -> bool:
    """Return whether `x [B, T, ...]` or `[B, H, ...]` has nothing to read.

    Then outputs are empty, and the state stays as it is.
    """
    return 0 in x.shape[:2]


def describe(x: Tensor) -> str:
    """Return type and shape, e.g. `float32 [2, 3]`."""
    return f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}"
