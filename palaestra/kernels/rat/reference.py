"""RAT in plain PyTorch: the token loop is the specification, the chunk form the path on CPU."""

import torch
from torch import Tensor

from palaestra.kernels._common.rotary import rotate
from palaestra.kernels._common.runtime import acc_dtype, asking_is_free
from palaestra.kernels._common.scan import scan
from palaestra.kernels.rat.attend import attend
from palaestra.kernels.rat.average import average
from palaestra.kernels.rat.phase import ends, phases, visible, visible_slots
from palaestra.kernels.rat.ring import after, emptied, is_none, put
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
    c, inside = p // L, p % L
    first, kept = (inside == 0)[:, None, None], 1 - g
    k_run = kept * k + g * state.k_run.masked_fill(first, 0)
    v_run = kept * v + g * state.v_run.masked_fill(first, 0)
    k_end, v_end = state.k_end, state.v_end
    if not is_none(reset):
        k_end, v_end = emptied(k_end, reset), emptied(v_end, reset)

    # All are seen once the ring is full.
    unseen = torch.arange(C, device=q.device) >= c.unsqueeze(1)  # (B, C)
    q_rot = rotate(q, c.unsqueeze(1), base).to(dtype).to(acc)
    # A product of one query with its own keys is no matrix product: two passes are faster.
    inter = (k_end.to(acc) * q_rot.unsqueeze(2)).sum(3)  # (B, H, C)
    own = (q * k_run.to(dtype).to(acc)).sum(2, keepdim=True)  # (B, H, 1)
    logits = torch.cat([inter.masked_fill(unseen.unsqueeze(1), -torch.inf), own], 2)
    P = (scale * logits).softmax(2).unsqueeze(3)  # (B, H, C + 1, 1)
    o = (P[:, :, :C] * v_end.to(acc)).sum(2) + P[:, :, C] * v_run.to(dtype).to(acc)

    last = inside == L - 1
    if not is_none(last):
        k_new, v_new = rotate(k_run, c.unsqueeze(1), base).to(dtype), v_run.to(dtype)
        k_end, v_end = put(k_end, k_new, c % C, last), put(v_end, v_new, c % C, last)
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
    q, k = (tile(x, H).to(acc) for x in (q, k))
    v, g = v.to(acc), g.to(acc)
    k_run, v_run = _averages(k, v, g, state, phase.inside == 0)

    c_end = phase.chunk.gather(1, end.clamp(min=0))
    k_end = rotate(_at(k_run, end), c_end.unsqueeze(1), base).to(dtype)  # (B, H, N, D)
    v_end = _at(v_run, end).to(dtype)
    mask, keys, values = visible(phase, end, C), k_end, v_end
    if carried and not is_none(phase.seg == 0):
        mask = torch.cat([visible_slots(phase, state.pos, L, C), mask], 2)  # (B, T, M)
        keys, values = torch.cat([state.k_end, keys], 2), torch.cat([state.v_end, values], 2)
    k_own, v_own = k_run.to(dtype).to(acc), v_run.to(dtype).to(acc)
    own = (q * k_own).sum(3)  # (B, T, H)
    q_rot = rotate(q, phase.chunk.unsqueeze(2), base).to(dtype).to(acc)
    o = _attend(q_rot, own, v_own, keys.to(acc), values.to(acc), mask, scale)
    pos = phase.pos
    k_end, v_end = after(state.k_end, k_end, pos, T, L), after(state.v_end, v_end, pos, T, L)
    return o.to(dtype), RatState(k_end, v_end, k_run[:, -1], v_run[:, -1], pos.int())


def tile(x: Tensor, heads: int) -> Tensor:
    """Repeat the groups of `x [..., G, D]`: head h takes group h mod G."""
    return x if x.shape[-2] == heads else torch.cat([x] * (heads // x.shape[-2]), -2)


def _averages(
    k: Tensor, v: Tensor, g: Tensor, state: RatState, first: Tensor
) -> tuple[Tensor, Tensor]:
    """Return running keys and values `[B, T, H, D]`; `first [B, T]` begins a chunk."""
    if asking_is_free(first):
        return average(k, v, g, state.k_run, state.v_run, first)
    k_run = scan(g, (1 - g) * k, state.k_run, first)
    return k_run, scan(g, (1 - g) * v, state.v_run, first)


def _at(x: Tensor, step: Tensor) -> Tensor:
    """Return `x [B, T, H, D]` at the steps `[B, N]`, zeros where -1, as `[B, H, N, D]`."""
    rows = torch.arange(len(x), device=x.device).unsqueeze(1)
    found = x[rows, step.clamp(min=0)].masked_fill((step < 0)[:, :, None, None], 0)
    return found.transpose(1, 2)


def _attend(
    q: Tensor, own: Tensor, v_own: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float
) -> Tensor:
    """Return `o [B, T, H, D]`, attending over finished chunks and the open one; see `attend`.

    A weight of 0 does not stop NaN in a product, neither forward nor backward; so broken steps and
    chunks leave the products and mark by hand the outputs that see them.
    """
    broken = ~(own.isfinite() & v_own.sum(3).isfinite())  # (B, T, H)
    lost = ~(keys.sum(3).isfinite() & values.sum(3).isfinite())  # (B, H, M)
    if is_none(broken) and is_none(lost):
        return attend(q, own, v_own, keys, values, mask, scale)
    q, v_own = (x.masked_fill(broken.unsqueeze(3), 0) for x in (q, v_own))
    keys, values = (x.masked_fill(lost.unsqueeze(3), 0) for x in (keys, values))
    o = attend(q, own.masked_fill(broken, 0), v_own, keys, values, mask, scale)
    sees_lost = (mask.unsqueeze(2) & lost.unsqueeze(1)).any(3)  # (B, T, H)
    return o.masked_fill((broken | sees_lost).unsqueeze(3), torch.nan)
