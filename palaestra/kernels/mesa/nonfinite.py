"""What non-finite steps do to a window: `_common/nonfinite.py` says why."""

from collections.abc import Callable

import torch
from torch import Tensor

from palaestra.kernels._common.nonfinite import nonfinite, nonfinite_reach
from palaestra.kernels._common.runtime import asking_is_free
from palaestra.kernels.mesa.state import MesaState

Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""q, k, v, g and beta."""

Spoil = Callable[[Tensor, MesaState], tuple[Tensor, MesaState]]


def cleaned(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    reset: Tensor,
    state: MesaState,
) -> tuple[Inputs, MesaState, Spoil]:
    """Return (q, k, v, g, beta), then the state, with 0 where a step or state is not finite.

    The third result takes output and final state and sets to NaN what such a step has reached.
    """
    g = g.masked_fill(reset.unsqueeze(-1), 0)
    bad = nonfinite(k, v) | ~((g <= 0) & beta.isfinite())  # [B, T, H]
    bad_q = nonfinite(q)
    bad_state = nonfinite(state.hkk.flatten(2), state.hkv.flatten(2))  # [B, H]
    if asking_is_free(q) and not (bad_q.any() or bad.any() or bad_state.any()):
        return (q, k, v, g, beta), state, _unspoilt

    reached = nonfinite_reach(bad, bad_state, reset)
    x = (
        q.masked_fill(bad_q.unsqueeze(-1), 0),
        k.masked_fill(bad.unsqueeze(-1), 0),
        v.masked_fill(bad.unsqueeze(-1), 0),
        g.masked_fill(bad, 0),
        beta.masked_fill(bad, 0),
    )

    def spoilt(o: Tensor, state: MesaState) -> tuple[Tensor, MesaState]:
        o = o.masked_fill((bad_q | reached).unsqueeze(-1), torch.nan)
        return o, _filled(state, reached[:, -1], torch.nan)

    return x, _filled(state, bad_state, 0), spoilt


def _unspoilt(o: Tensor, state: MesaState) -> tuple[Tensor, MesaState]:
    return o, state


def _filled(state: MesaState, mask: Tensor, value: float) -> MesaState:
    mask = mask[..., None, None]
    return MesaState(state.hkk.masked_fill(mask, value), state.hkv.masked_fill(mask, value))
