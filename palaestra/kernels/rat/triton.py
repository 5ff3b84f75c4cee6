# mypy: disable-error-code="import-untyped, import-not-found, no-untyped-def"
"""RAT on the GPU: two launches forward, three backward, whatever the resets."""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from palaestra.kernels._common.autograd import by_hand
from palaestra.kernels._common.runtime import INTERPRET, acc_dtype, guard
from palaestra.kernels.rat.ring import after
from palaestra.kernels.rat.state import RatState
from palaestra.kernels.rat.triton_attention import (
    rat_attention_bwd_kernel_keys,
    rat_attention_bwd_kernel_queries,
    rat_attention_fwd_kernel,
)
from palaestra.kernels.rat.triton_scan import rat_scan_bwd_kernel, rat_scan_fwd_kernel

_TYPES = {
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
    torch.float32: tl.float32,
    torch.float64: tl.float64,
}


def chunk(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    reset: Tensor,
    state: RatState,
    L: int,
    scale: float,
    base: float | None,
    carried: bool,
) -> tuple[Tensor, RatState]:
    """Read a window; arguments as in `reference.chunk`."""
    T, C = q.shape[1], state.capacity if carried else 0
    inputs = [x.contiguous() for x in (q, k, v, g, state.k_run, state.v_run)]
    slots = [x[:, :, :C].contiguous() for x in (state.k_end, state.v_end)]
    o, keys, values, k_last, v_last, p = _Rat.apply(
        *inputs, *slots, reset, state.pos, state.capacity, L, scale, base
    )
    pos = p[:, -1] + 1
    k_end = after(state.k_end, keys[:, :, C:], pos, T, L)
    v_end = after(state.v_end, values[:, :, C:], pos, T, L)
    return o, RatState(k_end, v_end, k_last, v_last, pos)


class _Rat(torch.autograd.Function):
    """Outputs, keys and values of finished chunks, the open pair after the window, positions."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        g: Tensor,
        k_0: Tensor,
        v_0: Tensor,
        k_slot: Tensor,
        v_slot: Tensor,
        reset: Tensor,
        pos_0: Tensor,
        capacity: int,
        L: int,
        scale: float,
        base: float | None,
    ) -> tuple[Tensor, ...]:
        (B, T, H, D), C = v.shape, k_slot.shape[2]
        M = C + triton.cdiv(T, L)
        keys, values = q.new_empty(2, B, H, M, D).unbind()
        k_run, v_run = k_0.new_empty(2, B, T, H, D).unbind()
        k_last, v_last = torch.empty_like(k_0), torch.empty_like(v_0)
        pos, seg = pos_0.new_empty(2, B, T).unbind()
        key_chunk, key_seg = pos_0.new_empty(2, B, M).unbind()
        o, lse = torch.empty_like(v), k_0.new_empty(B, H, T)
        const = _constants(q, v, L, base)
        block = _blocks(q, scale, T)
        reset = reset.contiguous().view(torch.uint8)
        places = pos, seg, key_chunk, key_seg
        with guard(q.device):
            rat_scan_fwd_kernel[(B * H,)](
                *(k, v, g, reset, pos_0, k_0, v_0, k_slot, v_slot),
                *(k_run, v_run, keys, values, *places, k_last, v_last),
                *(T, C, M),
                **const,
                num_warps=1,
            )
            rat_attention_fwd_kernel[(B * H * triton.cdiv(T, block["BT"]),)](
                *(q, k_run, v_run, keys, values, *places, o, lse),
                *(T, M, capacity),
                **const,
                **block,
            )
        ctx.save_for_backward(q, k, v, g, k_0, v_0, k_run, v_run, keys, values, *places, o, lse)
        ctx.options = (C, capacity, L, scale, base)
        ctx.mark_non_differentiable(pos)
        return o, keys, values, k_last, v_last, pos

    @staticmethod
    @by_hand
    def backward(
        ctx: Any, do: Tensor, dkeys_out: Tensor, dvalues_out: Tensor, *d_last: Tensor
    ) -> tuple[Tensor | None, ...]:
        q, k, v, g, k_0, v_0, k_run, v_run, keys, values, *places, o, lse = ctx.saved_tensors
        C, capacity, L, scale, base = ctx.options
        (B, T, H, D), G, M = v.shape, q.shape[2], keys.shape[2]
        dk_last, dv_last = (x.contiguous() for x in d_last[:2])
        do, dkeys_out, dvalues_out = (x.contiguous() for x in (do, dkeys_out, dvalues_out))
        dq, dk_run, dv_run, dk, dv, dg = k_0.new_empty(6, B, T, H, D).unbind()
        dkeys, dvalues = k_0.new_empty(2, B, H, M, D).unbind()
        dk_0, dv_0, delta = torch.empty_like(k_0), torch.empty_like(v_0), torch.empty_like(lse)
        const = _constants(q, v, L, base)
        block = _blocks(q, scale, T)
        with guard(q.device):
            rat_attention_bwd_kernel_queries[(B * H * triton.cdiv(T, block["BT"]),)](
                *(q, k_run, v_run, keys, values, *places, o, lse, do),
                *(delta, dq, dk_run, dv_run),
                *(T, M, capacity),
                **const,
                **block,
            )
            rat_attention_bwd_kernel_keys[(B * H * triton.cdiv(M - C, block["BM"]),)](
                *(q, keys, values, *places, lse, delta, o, do, dkeys_out, dvalues_out),
                *(dkeys, dvalues),
                *(T, C, M, capacity),
                **const,
                **block,
            )
            rat_scan_bwd_kernel[(B * H,)](
                *(k, v, g, k_0, v_0, k_run, v_run, places[0]),
                *(dk_run, dv_run, dkeys, dvalues, dk_last, dv_last),
                *(dk, dv, dg, dk_0, dv_0),
                *(T, C, M),
                **{"H": H, "G": G, "D": D, "BD": triton.next_power_of_2(D)},
                **{"L": L, "ACC": const["ACC"]},
                num_warps=1,
            )
        dq, dk = (x.unflatten(2, (H // G, G)).sum(2).to(q.dtype) for x in (dq, dk))
        return (dq, dk, dv.to(v.dtype), dg.to(g.dtype), dk_0, dv_0, *(None,) * 8)


def _constants(q: Tensor, v: Tensor, L: int, base: float | None) -> dict[str, Any]:
    """Return what the kernels are compiled for."""
    D = v.shape[3]
    return {
        "H": v.shape[2],
        "G": q.shape[2],
        "D": D,
        "HALF": (D + 1) // 2,
        # The smallest product of blocks on a GPU is 16 wide.
        "BD": max(16, triton.next_power_of_2((D + 1) // 2)),
        "L": L,
        "LOG_BASE": None if base is None else math.log2(base),
        "ACC": _TYPES[acc_dtype(q.dtype)],
    }


def _blocks(q: Tensor, scale: float, T: int) -> dict[str, Any]:
    """Return the sizes of the attention's blocks and the type of its products."""
    rows = 64 if q.shape[3] <= 64 else 32
    return {
        "SCALE": scale,
        "BT": min(rows, max(16, triton.next_power_of_2(T))),
        "BM": 16,
        # The interpreter multiplies the bit patterns of bfloat16.
        "DOT": _TYPES[torch.float32 if INTERPRET and q.dtype == torch.bfloat16 else q.dtype],
        # One stage: a second one would not fit beside wide heads in float32.
        "num_stages": 1,
    }
