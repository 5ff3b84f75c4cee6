"""RAT in plain PyTorch: the token loop is the specification, the chunk form the path on CPU."""

from math import isfinite

import torch
from torch import Tensor

from palaestra.kernels._common.runtime import acc_dtype, asking_is_free, is_none, may_hold, steps
from palaestra.kernels.rat.nonfinite import read_nonfinite
from palaestra.kernels.rat.positions import places
from palaestra.kernels.rat.ring import emptied, put
from palaestra.kernels.rat.state import RatState
from palaestra.kernels.rat.window import read, tile
from palaestra.kernels.rotary import turn, turns


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
    inplace: bool = False,
) -> tuple[Tensor, RatState]:
    """Read one step; arguments as `step_rat`, all given."""
    (_, H, D), C, dtype, acc = v.shape, state.capacity, q.dtype, acc_dtype(q.dtype)
    q, k, v, g = (tile(x, H).to(acc) for x in (q, k, v, g))  # (B, H, D)
    p, k_run, v_run, k_end, v_end = state.pos, state.k_run, state.v_run, state.k_end, state.v_end
    if not is_none(reset):
        p = p.masked_fill(reset, 0)  # (B,)
        k_end, v_end = emptied(k_end, reset, inplace), emptied(v_end, reset, inplace)
    c, inside = p // L, p % L
    if may_hold(inside, 0):
        first = (inside == 0)[:, None, None]
        k_run, v_run = k_run.masked_fill(first, 0), v_run.masked_fill(first, 0)
    k_run, v_run = k.lerp(k_run, g), v.lerp(v_run, g)

    def rounded(x: Tensor) -> Tensor:
        return x if dtype == acc else x.to(dtype).to(acc)

    unseen = c.unsqueeze(1) <= steps(C, c.device)  # (B, C); none once the ring is full
    at = turns(c, H, D, base, acc)
    # A product of one query with its own keys is no matrix product: two passes are faster.
    inter = (k_end * rounded(turn(q, at)).unsqueeze(2)).sum(3)  # (B, H, C)
    own = (q * rounded(k_run)).sum(2, keepdim=True)  # (B, H, 1)
    logits = torch.cat([inter.masked_fill(unseen.unsqueeze(1), -torch.inf), own], 2)
    P, P_own = (scale * logits).softmax(2).split([C, 1], 2)
    o = torch.addcmul((P.unsqueeze(3) * v_end).sum(2), P_own, rounded(v_run))

    if may_hold(inside, L - 1):
        last, k_new, v_new = inside == L - 1, turn(k_run, at).to(dtype), v_run.to(dtype)
        ends = ((k_end, k_new), (v_end, v_new))
        k_end, v_end = (put(x, new, c % C, last, inplace) for x, new in ends)
    if not inplace:
        return o.to(dtype), RatState(k_end, v_end, k_run, v_run, p + 1)
    for x, new in ((state.k_run, k_run), (state.v_run, v_run), (state.pos, p + 1)):
        x.copy_(new)
    return o.to(dtype), state


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
    at = places(reset, state.pos, L, state.capacity, carried)
    known = at.hidden.shape[1] - at.end.shape[1]
    run = torch.stack([state.k_run, state.v_run])
    ring = torch.stack([state.k_end[:, :, :known], state.v_end[:, :, :known]])
    arguments = (q, k, v, g, run, ring, at, L, scale, base)
    if asking_is_free(q):
        o, run, ring = read(*arguments)
    if not asking_is_free(q) or not isfinite(float(o.detach().sum(dtype=acc_dtype(o.dtype)))):
        o, run, ring = read_nonfinite(*arguments)
    (k_end, v_end), (k_run, v_run) = ring, run
    return o, RatState(k_end, v_end, k_run, v_run, at.pos.int())
