"""Steps of a window that are not finite leave the products; their outputs are marked by hand."""

from typing import NamedTuple

import torch
from torch import Tensor

from palaestra.kernels._common.nonfinite import nonfinite, nonfinite_reach
from palaestra.kernels._common.runtime import asking_is_free


class Clean(NamedTuple):
    """Arguments of `chunk_delta` with zeros for what is not finite, and what that breaks."""

    q: Tensor
    k: Tensor
    v: Tensor
    beta: Tensor
    g: Tensor | None
    state: Tensor
    bad_o: Tensor
    """bool `[B, T, H, 1]`."""
    bad_state: Tensor
    """bool `[B, H, 1, 1]`, of the state after the window."""

    def spoilt(self, o: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return output and final state with NaN where a non-finite step shows."""
        if asking_is_free(o) and not self.bad_o.any():
            return o, state
        return o.masked_fill(self.bad_o, torch.nan), state.masked_fill(self.bad_state, torch.nan)


def clean(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None,
    state: Tensor,
    reset: Tensor,
) -> Clean:
    """Return the arguments without non-finite steps."""
    bad_q, bad_S = nonfinite(q), nonfinite(state.flatten(2))
    bad = nonfinite(k, v, beta.unsqueeze(-1))
    if g is not None:
        bad = bad | (~(g <= 0) & ~reset.unsqueeze(-1))
    reached = nonfinite_reach(bad, bad_S, reset)
    bad_o, bad_state = (reached | bad_q).unsqueeze(-1), reached[:, -1, :, None, None]
    if asking_is_free(q) and not (bad_o.any() or bad_S.any()):
        return Clean(q, k, v, beta, g, state, bad_o, bad_state)
    return Clean(
        q.masked_fill(bad_q.unsqueeze(-1), 0),
        k.masked_fill(bad.unsqueeze(-1), 0),
        v.masked_fill(bad.unsqueeze(-1), 0),
        beta.masked_fill(bad, 0),
        None if g is None else g.masked_fill(bad, 0),
        state.masked_fill(bad_S[..., None, None], 0),
        bad_o,
        bad_state,
    )
