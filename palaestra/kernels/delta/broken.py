"""Steps of a window that are not finite leave the products; their outputs are marked by hand."""

from typing import NamedTuple

from torch import Tensor

from palaestra.kernels._common.broken import broken_steps, not_finite


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


def clean(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None,
    state: Tensor,
    reset: Tensor,
) -> Clean:
    """Return the arguments without broken steps."""
    bad_q, bad_S = not_finite(q), not_finite(state.flatten(2))
    bad = not_finite(k, v, beta.unsqueeze(-1))
    if g is not None:
        bad = bad | (~(g <= 0) & ~reset.unsqueeze(-1))
        g = g.masked_fill(bad, 0)
    broken = broken_steps(bad, bad_S, reset)
    return Clean(
        q.masked_fill(bad_q.unsqueeze(-1), 0),
        k.masked_fill(bad.unsqueeze(-1), 0),
        v.masked_fill(bad.unsqueeze(-1), 0),
        beta.masked_fill(bad, 0),
        g,
        state.masked_fill(bad_S[..., None, None], 0),
        (broken | bad_q).unsqueeze(-1),
        broken[:, -1, :, None, None],
    )
