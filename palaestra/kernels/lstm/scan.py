"""Long short-term memory over a window, both directions written by hand.

What does not depend on the previous step is done once for the whole window; README.md has the
formulas.
"""

from typing import Any

import torch
from torch import Tensor

from palaestra.kernels._common.autograd import by_hand


class LSTMScan(torch.autograd.Function):
    """`apply(x, h_0, c_0, reset, w_ih, w_hh, b_ih, b_hh, spoilt)`, time-major.

    As `chunk_lstm`; `spoilt [T, B, 1]` are the steps that give no gradient, or None.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h_0: Tensor,
        c_0: Tensor,
        reset: Tensor,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor,
        b_hh: Tensor,
        spoilt: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Return `h_1 .. h_T`, `[T, B, H]`, and `c_T`, `[B, H]`."""
        (T, B, C), H = x.shape, h_0.shape[1]
        # tanh(a) = 2 sigmoid(2a) - 1, so that one sigmoid serves all four gates.
        twice = w_ih.new_ones(4 * H, 1)
        twice[2 * H : 3 * H] = 2
        w_x, w_h = w_ih * twice, (w_hh * twice).t()
        b = (b_ih + b_hh) * twice.squeeze(1)
        gates = torch.addmm(b, x.reshape(T * B, C), w_x.t()).view(T, B, 4 * H)
        # h and c are what each step reads, y and the last c what it leaves.
        h, tanh_c, y = (x.new_empty(T, B, H) for _ in range(3))
        c = x.new_empty(T + 1, B, H)
        h_t, c_t, masks, zero = h_0, c_0, reset.unsqueeze(2), x.new_zeros(())
        for t in range(T):
            torch.where(masks[t], zero, h_t, out=h[t])
            torch.where(masks[t], zero, c_t, out=c[t])
            gate = gates[t].addmm_(h[t], w_h).sigmoid_()
            i, f, g, o = gate.view(B, 4, H).unbind(1)
            g.mul_(2).sub_(1)
            c_t = torch.addcmul(i * g, f, c[t], out=c[t + 1])
            h_t = torch.mul(o, torch.tanh(c_t, out=tanh_c[t]), out=y[t])
        ctx.save_for_backward(x, h, c[:T], reset, w_ih, w_hh, gates, tanh_c, spoilt)
        return y, c[T].clone()

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, dc: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of all arguments."""
        x, h_tm1, c_tm1, reset, w_ih, w_hh, gates, tanh_c, spoilt = ctx.saved_tensors
        if spoilt is not None:
            seen = (x, h_tm1, c_tm1, gates, tanh_c, dy)
            x, h_tm1, c_tm1, gates, tanh_c, dy = (y.masked_fill(spoilt, 0) for y in seen)
            dc = dc.masked_fill(spoilt[-1], 0)
        (T, B, C), H = x.shape, c_tm1.shape[2]
        i, f, g, o = gates.view(T, B, 4, H).unbind(2)
        # d = slope of (c, c, c, h) in the four gates before their nonlinearities
        d = torch.stack(
            [g * i * (1 - i), c_tm1 * f * (1 - f), i * (1 - g * g), tanh_c * o * (1 - o)], 2
        )  # (T, B, 4, H)
        dh_dc = o * (1 - tanh_c * tanh_c)
        masks, zero = reset.unsqueeze(2), dc.new_zeros(())
        dh = dy.new_zeros(B, H)
        for t in range(T - 1, -1, -1):
            dh = dh + dy[t]
            dc = torch.addcmul(dc, dh, dh_dc[t])
            d[t, :, :3].mul_(dc.unsqueeze(1))
            d[t, :, 3].mul_(dh)
            dh = torch.where(masks[t], zero, d[t].view(B, 4 * H) @ w_hh)
            dc = torch.where(masks[t], zero, dc * f[t])
        d_flat = d.view(T * B, 4 * H)
        db = d_flat.sum(0)
        dx = (d_flat @ w_ih).view(T, B, C) if ctx.needs_input_grad[0] else None
        dw_ih = d_flat.t() @ x.reshape(T * B, C)
        dw_hh = d_flat.t() @ h_tm1.reshape(T * B, H)
        return dx, dh, dc, None, dw_ih, dw_hh, db, db, None
