"""Numbers that are not finite: they leave the window, and the outputs that see them become NaN.

A weight of 0 does not stop NaN in a product, neither forward nor backward, and the averages of a
window run over the bounds of chunks with factors of 0.
"""

import torch
from torch import Tensor

from palaestra.kernels._common.nonfinite import nonfinite, nonfinite_reach
from palaestra.kernels._common.runtime import asking_is_free
from palaestra.kernels.rat.positions import Places
from palaestra.kernels.rat.window import read, tile


def read_nonfinite(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    run: Tensor,
    ring: Tensor,
    places: Places,
    L: int,
    scale: float,
    base: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Read a window that may hold such numbers; as `window.read`."""
    bad_q, G = nonfinite(q), q.shape[2]  # (B, T, G)
    inputs = _sound(k), _sound(v), _sound(g), _sound(run), _sound(ring)

    def read_others() -> tuple[Tensor, Tensor, Tensor]:
        sound_q = q.masked_fill(bad_q.unsqueeze(-1), 0)
        return read(sound_q, *inputs, places, L, scale, base)

    o, new_run, new_ring = read_others()
    # Finite numbers may be so large that their product is not.
    overflow = nonfinite(o).unflatten(2, (-1, G)).any(2)
    if asking_is_free(o) and overflow.any():
        bad_q = bad_q | overflow
        o, new_run, new_ring = read_others()

    bad_q, bad_k = (tile(x.unsqueeze(3), v.shape[2])[..., 0] for x in (bad_q, nonfinite(k)))
    bad = bad_k | nonfinite(v, g)  # (B, T, H)
    open_ = nonfinite_reach(bad, nonfinite(*run), ~places.continues)
    lost = _lost(open_, nonfinite(*ring), places.end)
    sees = (lost[:, :-1].unsqueeze(2) & ~places.hidden.unsqueeze(3)).any(1)
    in_ring = _at(lost, places.source).transpose(1, 2)
    return (
        _marked(o, open_ | bad_q | sees),
        _marked(new_run, open_[:, -1]),
        _marked(new_ring, in_ring),
    )


def _lost(open_: Tensor, slots: Tensor, end: Tensor) -> Tensor:
    """Return which finished chunks are lost, `[B, M + 1, H]`; the last one stands for none."""
    T = open_.shape[1]
    ended = _at(open_, end.clamp(max=T - 1)) & (end < T).unsqueeze(2)
    return torch.cat([slots.transpose(1, 2), ended, torch.zeros_like(ended[:, :1])], 1)


def _at(x: Tensor, index: Tensor) -> Tensor:
    """Return the entries of `x [B, T, H]` at `[B, N]`."""
    return x.gather(1, index.unsqueeze(2).expand(-1, -1, x.shape[2]))


def _sound(x: Tensor) -> Tensor:
    return x.masked_fill(nonfinite(x).unsqueeze(-1), 0)


def _marked(x: Tensor, where: Tensor) -> Tensor:
    return x.masked_fill(where.unsqueeze(-1), torch.nan)
