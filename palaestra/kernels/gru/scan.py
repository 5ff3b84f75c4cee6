"""The gated recurrent unit over a window, both directions written by hand for the CPU.

Time and the four gates are worked through in blocks of steps that stay in a core's cache. Within a
block each gate is a matrix of its own, `[4, steps, B, H]`, so that every elementwise pass runs over
contiguous memory, and what does not depend on the previous step is done once for the whole block.
"""

from typing import Any

import torch
from torch import Tensor

from palaestra.kernels._common.autograd import by_hand

_BLOCK = 65536
"""Numbers of one gate in a block."""


class GRUScan(torch.autograd.Function):
    """`apply(x, h_0, reset, w_ih, w_hh, b_ih, b_hh, spoilt)`, time-major.

    As `chunk_gru`; `spoilt [T, B, 1]` are the steps that give no gradient, or None.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h_0: Tensor,
        reset: Tensor,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor,
        b_hh: Tensor,
        spoilt: Tensor | None,
    ) -> Tensor:
        """Return `h_1 .. h_T`, `[T, B, H]`."""
        T, (B, H) = len(x), h_0.shape
        w_x, b_x = _input_weights(w_ih, b_ih, b_hh)
        w_h, b_n = w_hh.view(3, H, H).transpose(1, 2), b_hh[2 * H :]
        masks = _masks(reset)
        h = x.new_empty(T + 1, B, H)
        h[0] = h_0
        hs, blocks = h.unbind(), []
        steps = max(1, _BLOCK // (B * H))
        for start in range(0, T, steps):
            gates = _project(x[start : start + steps], w_x, b_x)
            _recur(gates, hs[start:], masks[start:], w_h, b_n)
            blocks.append(gates)
        ctx.save_for_backward(x, h, reset, w_ih, w_hh, spoilt, *blocks)
        return h[1:]

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of all arguments."""
        x, h, reset, w_ih, w_hh, spoilt, *blocks = ctx.saved_tensors
        (T, B, C), H = x.shape, h.shape[-1]
        w_x, w_h = w_ih.view(3, H, C), w_hh.view(3, H, H)
        dw_x, dw_h, db = torch.zeros_like(w_x), torch.zeros_like(w_h), x.new_zeros(4, H)
        dx = x.new_empty(T, B, C) if ctx.needs_input_grad[0] else None
        if spoilt is not None:
            x, dy = x.masked_fill(spoilt, 0), dy.masked_fill(spoilt, 0)
        masks, dys = _masks(reset), (x.new_zeros(B, H), *dy.unbind())
        dh, stop = dys[-1], T
        for gates in reversed(blocks):
            start = stop - gates.shape[1]
            h_tm1 = _before(h[start:stop], reset[start:stop], masks[start:stop])
            if spoilt is not None:
                h_tm1 = h_tm1.masked_fill(spoilt[start:stop], 0)
                gates = gates.masked_fill(spoilt[start:stop], 0)
            d = _slopes(gates, h_tm1)
            dh = _recur_back(d, gates[1], dh, dys[start:stop], masks[start:stop], w_h)
            d = d.view(4, -1, H)
            dw_h.baddbmm_(d[1:].transpose(1, 2), h_tm1.reshape(-1, H).expand(3, -1, -1))
            dw_x.baddbmm_(d[:3].transpose(1, 2), x[start:stop].reshape(-1, C).expand(3, -1, -1))
            db += d.sum(1)
            if dx is not None:
                dx_b = dx[start:stop].view(-1, C)
                torch.mm(d[1], w_x[0], out=dx_b).addmm_(d[2], w_x[1]).addmm_(d[0], w_x[2])
            stop = start
        db_n, db_r, db_z, db_h = db.unbind()
        return (
            dx,
            dh,
            None,
            dw_x.roll(-1, 0).view(3 * H, C),
            dw_h.view(3 * H, H),
            torch.cat([db_r, db_z, db_n]),
            torch.cat([db_r, db_z, db_h]),
            None,
        )


def _input_weights(w_ih: Tensor, b_ih: Tensor, b_hh: Tensor) -> tuple[Tensor, Tensor]:
    """Return `[3, C, H]` and `[3, 1, H]`, the new gate's twice as large (see `_recur`)."""
    H = len(b_ih) // 3
    twice = w_ih.new_tensor([1, 1, 2]).view(3, 1, 1)
    b_x = torch.cat([b_ih[: 2 * H] + b_hh[: 2 * H], b_ih[2 * H :]])
    return (w_ih.view(3, H, -1) * twice).transpose(1, 2), b_x.view(3, 1, H) * twice


def _masks(reset: Tensor) -> list[Tensor | None]:
    """Return each step's resets `[B, 1]`; None where no row resets, as at most steps."""
    steps = reset.unsqueeze(-1).unbind()
    return [
        mask if found else None for mask, found in zip(steps, reset.any(1).tolist(), strict=True)
    ]


def _project(x: Tensor, w_x: Tensor, b_x: Tensor) -> Tensor:
    """Return gates `[4, steps, B, H]`, filled with the inputs' part of r, z and n."""
    (steps, B, C), H = x.shape, w_x.shape[-1]
    gates = x.new_empty(4, steps, B, H)
    out = gates[:3].view(3, steps * B, H)
    torch.baddbmm(b_x, x.reshape(-1, C).expand(3, -1, -1), w_x, out=out)
    return gates


def _recur(
    gates: Tensor, hs: tuple[Tensor, ...], masks: list[Tensor | None], w_h: Tensor, b_n: Tensor
) -> None:
    """Run the steps of a block: fill `gates` with r, z, n and W_n h + b_n, and `hs[1:]` with h."""
    w_r, w_z, w_n = w_h.unbind()
    minus_one = b_n.new_tensor(-1)
    r, z, n, hn = (gate.unbind() for gate in gates.unbind())
    for t, rz_t in enumerate(gates[:2].unbind(1)):
        mask = masks[t]
        h_tm1 = hs[t] if mask is None else hs[t].masked_fill(mask, 0)
        r[t].addmm_(h_tm1, w_r)
        z[t].addmm_(h_tm1, w_z)
        rz_t.sigmoid_()
        torch.addmm(b_n, h_tm1, w_n, out=hn[t])
        # tanh(a) = 2 sigmoid(2a) - 1: torch's sigmoid is faster than its tanh on CPU.
        n[t].addcmul_(r[t], hn[t], value=2).sigmoid_()
        torch.add(minus_one, n[t], alpha=2, out=n[t])
        torch.lerp(n[t], h_tm1, z[t], out=hs[t + 1])


def _before(h: Tensor, reset: Tensor, masks: list[Tensor | None]) -> Tensor:
    """Return what each step read: the previous state, zeros at resets."""
    if all(mask is None for mask in masks):
        return h
    return h.masked_fill(reset.unsqueeze(-1), 0)


def _slopes(gates: Tensor, h_tm1: Tensor) -> Tensor:
    """Return dh_t / d(n, r, z, W_n h + b_n before their nonlinearities), `[4, steps, B, H]`."""
    r, z, n, hn = gates.unbind()
    slopes = torch.empty_like(gates)
    s_n, s_r, s_z, s_h = slopes.unbind()
    not_z = 1 - z
    torch.addcmul(n.new_tensor(1), n, n, value=-1, out=s_n).mul_(not_z)
    torch.mul(s_n, r, out=s_h)
    torch.mul(s_h, hn, out=s_r).mul_(1 - r)
    torch.sub(h_tm1, n, out=s_z).mul_(z).mul_(not_z)
    return slopes


def _recur_back(
    slopes: Tensor,
    z: Tensor,
    dh: Tensor,
    dys: tuple[Tensor, ...],
    masks: list[Tensor | None],
    w_h: Tensor,
) -> Tensor:
    """Turn `slopes` into gradients, last step first, and return that of the block's first state.

    Args:
      slopes: `[4, steps, B, H]`, multiplied in place by dh_t.
      z: `[steps, B, H]`.
      dh: `[B, H]`, gradient of the block's last state, its output's included.
      dys: gradients of the outputs one step before each step of the block.
      masks: resets.
      w_h: `[3, H, H]`.
    """
    w_r, w_z, w_n = w_h.unbind()
    d, zs = slopes.unbind(1), z.unbind()
    _, d_r, d_z, d_h = (gate.unbind() for gate in slopes.unbind())
    for t in range(len(d) - 1, -1, -1):
        d[t].mul_(dh)
        dh = torch.addcmul(dys[t], dh, zs[t])
        dh.addmm_(d_r[t], w_r).addmm_(d_z[t], w_z).addmm_(d_h[t], w_n)
        mask = masks[t]
        if mask is not None:
            dh = torch.where(mask, dys[t], dh)
    return dh
