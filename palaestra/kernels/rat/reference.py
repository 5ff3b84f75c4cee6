"""RAT in plain PyTorch: the token loop is the specification, the chunk form the path on CPU."""

import torch
from torch import Tensor

from palaestra.kernels._common.runtime import acc_dtype
from palaestra.kernels._common.scan import scan
from palaestra.kernels.rat.phase import ends, phases, visible, visible_slots
from palaestra.kernels.rat.ring import after
from palaestra.kernels.rat.rotary import rotate
from palaestra.kernels.rat.state import RatState


def recurrent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    reset: Tensor,
    state: RatState,
    L: int,
    scale: float,
    base: float | None,
) -> tuple[Tensor, RatState]:
    """Read a window step by step; arguments as `chunk_rat`, all given."""
    outputs = []
    for t in range(q.shape[1]):
        o_t, state = step(q[:, t], k[:, t], v[:, t], g[:, t], reset[:, t], state, L, scale, base)
        outputs.append(o_t)
    return torch.stack(outputs, 1), state


def step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    reset: Tensor,
    state: RatState,
    L: int,
    scale: float,
    base: float | None,
) -> tuple[Tensor, RatState]:
    """Read one step; arguments as `step_rat`, all given."""
    H, C, dtype, acc = v.shape[1], state.capacity, q.dtype, acc_dtype(q.dtype)
    q, k = (tile(x, H).to(acc) for x in (q, k))  # (B, H, D)
    v, g = v.to(acc), g.to(acc)
    p = state.pos.masked_fill(reset, 0)  # (B,)
    c, first = p // L, (p % L == 0)[:, None, None]
    k_run = (1 - g) * k + g * state.k_run.masked_fill(first, 0)
    v_run = (1 - g) * v + g * state.v_run.masked_fill(first, 0)
    # Zeros, not the stale numbers: a stale NaN times a weight of 0 would still be NaN.
    k_end, v_end = (
        x.masked_fill(reset[:, None, None, None], 0) for x in (state.k_end, state.v_end)
    )

    slots = torch.arange(C, device=q.device)
    seen = slots < c.unsqueeze(1)  # (B, C), all once the ring is full
    q_rot = rotate(q, c.unsqueeze(1), base).to(dtype).to(acc)
    inter = (k_end.to(acc) @ q_rot.unsqueeze(3)).squeeze(3)  # (B, H, C)
    own = (q * k_run.to(dtype).to(acc)).sum(2, keepdim=True)  # (B, H, 1)
    logits = torch.cat([inter.masked_fill(~seen.unsqueeze(1), -torch.inf), own], 2)
    P = (scale * logits).softmax(2)
    o = (P[..., None, :C] @ v_end.to(acc)).squeeze(2) + P[..., C:] * v_run.to(dtype).to(acc)

    last = (p % L == L - 1).unsqueeze(1)
    write = (last & (slots == (c % C).unsqueeze(1)))[:, None, :, None]  # (B, 1, C, 1)
    k_new = rotate(k_run, c.unsqueeze(1), base).to(dtype)
    k_end = torch.where(write, k_new.unsqueeze(2), k_end)
    v_end = torch.where(write, v_run.to(dtype).unsqueeze(2), v_end)
    return o.to(dtype), RatState(k_end, v_end, k_run, v_run, p + 1)


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
    """Read a window; arguments as `chunk_rat`, all given.

    `carried` false says that the ring of `state` is empty.
    """
    T, H, C, dtype, acc = q.shape[1], v.shape[2], state.capacity, q.dtype, acc_dtype(q.dtype)
    phase = phases(reset, state.pos, L)
    end = ends(phase.inside, L)  # (B, N)
    q, k, v, g = (x.to(acc) for x in (q, k, v, g))
    kept, first = 1 - g, phase.inside == 0
    k_run = scan(g, _per_head(kept, k), state.k_run, first)
    v_run = scan(g, kept * v, state.v_run, first)

    c_end = phase.chunk.gather(1, end.clamp(min=0))
    k_end = rotate(_at(k_run, end), c_end.unsqueeze(1), base).to(dtype)  # (B, H, N, D)
    v_end = _at(v_run, end).to(dtype)
    mask, keys, values = visible(phase, end, C), k_end, v_end
    if carried:
        mask = torch.cat([visible_slots(phase, state.pos, L, C), mask], 2)  # (B, T, M)
        keys, values = torch.cat([state.k_end, keys], 2), torch.cat([state.v_end, values], 2)
    k_own, v_own = k_run.to(dtype).to(acc), v_run.to(dtype).to(acc)
    own = _per_head(k_own, q).sum(3)  # (B, T, H)
    q_rot = tile(rotate(q, phase.chunk.unsqueeze(2), base).to(dtype).to(acc), H)
    o = _attend(q_rot, own, v_own, keys.to(acc), values.to(acc), mask, scale)
    pos = phase.pos
    k_end, v_end = after(state.k_end, k_end, pos, T, L), after(state.v_end, v_end, pos, T, L)
    return o.to(dtype), RatState(k_end, v_end, k_run[:, -1], v_run[:, -1], pos.int())


def tile(x: Tensor, heads: int) -> Tensor:
    """Repeat the groups of `x [..., G, D]`: head h takes group h mod G."""
    return x if x.shape[-2] == heads else torch.cat([x] * (heads // x.shape[-2]), -2)


def _per_head(x: Tensor, y: Tensor) -> Tensor:
    """Return `x [B, T, H, D]` times `tile(y [B, T, G, D], H)`, without a copy of y."""
    return (x.unflatten(2, (-1, y.shape[2])) * y.unsqueeze(2)).flatten(2, 3)


def _at(x: Tensor, step: Tensor) -> Tensor:
    """Return `x [B, T, H, D]` at the steps `[B, N]`, zeros where -1, as `[B, H, N, D]`."""
    rows = torch.arange(len(x), device=x.device).unsqueeze(1)
    found = x[rows, step.clamp(min=0)].masked_fill((step < 0)[:, :, None, None], 0)
    return found.transpose(1, 2)


def _attend(
    q: Tensor, own: Tensor, v_own: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float
) -> Tensor:
    """Return `o [B, T, H, D]`, attending over finished chunks and the open one.

    A weight of 0 does not stop NaN in a product, neither forward nor backward; so broken steps and
    chunks leave the products and mark by hand the outputs that see them.

    Args:
      q: rotated queries `[B, T, H, D]`.
      own: scores of the open chunk `[B, T, H]`.
      v_own: its values `[B, T, H, D]`.
      keys: rotated keys of finished chunks `[B, H, M, D]`.
      values: their values.
      mask: which of them each step sees, `[B, T, M]`.
      scale: factor of the scores.
    """
    broken = ~(own.isfinite() & v_own.sum(3).isfinite())  # (B, T, H)
    q, v_own = (x.masked_fill(broken.unsqueeze(3), 0).transpose(1, 2) for x in (q, v_own))
    own = own.masked_fill(broken, 0).transpose(1, 2)
    lost = ~(keys.sum(3).isfinite() & values.sum(3).isfinite())  # (B, H, M)
    keys, values = (x.masked_fill(lost.unsqueeze(3), 0) for x in (keys, values))
    mask = mask.unsqueeze(1)  # (B, 1, T, M)
    broken = broken.transpose(1, 2) | (mask & lost.unsqueeze(2)).any(3)  # (B, H, T)

    M = keys.shape[2]
    inter = (q @ keys.transpose(2, 3)).masked_fill(~mask, -torch.inf)
    P = (scale * torch.cat([inter, own.unsqueeze(3)], 3)).softmax(3)  # (B, H, T, M + 1)
    o = P[..., :M] @ values + P[..., M:] * v_own
    return o.masked_fill(broken.unsqueeze(3), torch.nan).transpose(1, 2)
