"""The gated recurrent unit (arXiv 1406.1078) over a window of steps, with episode resets.

Weights have the layout of `torch.nn.GRU`: rows of the reset, update and new gate, `[3H, C]`,
`[3H, H]`, `[3H]`. README.md holds the formulas of both directions.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def gru_scan(
    x: Tensor, h_0: Tensor, reset: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor
) -> Tensor:
    """Return the hidden states of every step, `[T, B, H]`.

    Args:
      x: inputs, time-major `[T, B, C]`.
      h_0: `[B, H]`, the state before the window.
      reset: bool `[T, B]`; true = step t is the first of an episode and starts from zeros.
      w_ih, w_hh, b_ih, b_hh: the weights.
    """
    return _Scan.apply(x, h_0, reset, w_ih, w_hh, b_ih, b_hh)


def gru_step(
    x: Tensor, h_tm1: Tensor, reset: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor
) -> Tensor:
    """Return the next hidden state `[B, H]` from `x [B, C]`, `h_tm1 [B, H]` and `reset [B]`."""
    h_tm1 = h_tm1.masked_fill(reset.unsqueeze(-1), 0)
    return torch.gru_cell(x, h_tm1, w_ih, w_hh, b_ih, b_hh)


_BLOCK = 65536
"""Numbers of one gate in a block of steps; a block's gates stay in a core's cache."""


class _Scan(torch.autograd.Function):
    """The whole window, a block of steps at a time.

    Gates lie apart, `[4, steps, B, H]`, so that every elementwise pass is over contiguous memory.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,
        h_0: Tensor,
        reset: Tensor,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor,
        b_hh: Tensor,
    ) -> Tensor:
        (T, B, C), H = x.shape, h_0.shape[-1]
        # tanh(a) = 2 sigmoid(2a) - 1: on CPU torch's sigmoid is several times faster than its tanh.
        twice = x.new_tensor([1, 1, 2]).view(3, 1, 1)
        w_x = (w_ih.view(3, H, C) * twice).transpose(1, 2)
        b_x = torch.cat([b_ih[: 2 * H] + b_hh[: 2 * H], b_ih[2 * H :]]).view(3, 1, H) * twice
        w_r, w_z, w_n = w_hh.view(3, H, H).transpose(1, 2).unbind()
        b_n, minus_one = b_hh[2 * H :], x.new_tensor(-1)
        h = x.new_empty(T + 1, B, H)
        h[0] = h_0
        steps = _steps(B, H)
        blocks = []
        t = 0
        any_reset, resets = reset.any(1).tolist(), reset.unsqueeze(-1).unbind()
        hs = h.unbind()
        h_tm1 = h_0
        for x_b in x.split(steps):
            gates = x.new_empty(4, len(x_b), B, H)
            x_3 = x_b.reshape(1, -1, C).expand(3, -1, -1)
            torch.baddbmm(b_x, x_3, w_x, out=gates[:3].view(3, -1, H))
            for rz_t, (r_t, z_t, n_t, hn_t) in zip(gates[:2].unbind(1), zip(*(g.unbind() for g in gates.unbind()))):
                h_tm1 = hs[t]
                if any_reset[t]:
                    h_tm1 = h_tm1.masked_fill(resets[t], 0)
                t += 1
                r_t.addmm_(h_tm1, w_r)
                z_t.addmm_(h_tm1, w_z)
                rz_t.sigmoid_()
                torch.addmm(b_n, h_tm1, w_n, out=hn_t)
                n_t.addcmul_(r_t, hn_t, value=2).sigmoid_()
                torch.add(minus_one, n_t, alpha=2, out=n_t)
                torch.lerp(n_t, h_tm1, z_t, out=hs[t])
            blocks.append(gates)
        ctx.save_for_backward(x, h, reset, w_ih, w_hh, *blocks)
        return h[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, h, reset, w_ih, w_hh, *blocks = ctx.saved_tensors
        (T, B, C), H = x.shape, h.shape[-1]
        any_reset, resets = reset.any(1).tolist(), reset.unsqueeze(-1)
        w_r, w_z, w_n = w_hh.view(3, H, H).unbind()
        v_r, v_z, v_n = w_ih.view(3, H, C).unbind()
        dw_ih, dw_hh, db = x.new_zeros(3, H, C), x.new_zeros(3, H, H), x.new_zeros(4, H)
        dx = torch.empty_like(x, memory_format=torch.contiguous_format) if ctx.needs_input_grad[0] else None
        dys = dy.unbind()
        dh = dys[-1]
        stop = T
        one = x.new_tensor(1)
        for gates in reversed(blocks):
            start = stop - gates.shape[1]
            r, z, n, hn = gates.unbind()
            h_b = h[start:stop]
            if any(any_reset[start:stop]):
                h_b = h_b.masked_fill(resets[start:stop], 0)
            d = torch.empty_like(gates)
            d_n, d_r, d_z, d_hn = d.unbind()
            not_z = 1 - z
            torch.addcmul(one, n, n, value=-1, out=d_n).mul_(not_z)
            torch.mul(d_n, r, out=d_hn)
            torch.mul(d_hn, hn, out=d_r).mul_(1 - r)
            torch.sub(h_b, n, out=d_z).mul_(z).mul_(not_z)
            for t, d_t, dr_t, dz_t, dhn_t, z_t in zip(range(stop-1, start-1, -1), *(list(g)[::-1] for g in (d.unbind(1), d_r.unbind(), d_z.unbind(), d_hn.unbind(), z.unbind()))):
                d_t.mul_(dh)
                if t > 0 and not any_reset[t]:
                    dh = torch.addcmul(dys[t - 1], dh, z_t)
                    dh.addmm_(dr_t, w_r).addmm_(dz_t, w_z).addmm_(dhn_t, w_n)
                else:
                    dh = dh * z_t
                    dh.addmm_(dr_t, w_r).addmm_(dz_t, w_z).addmm_(dhn_t, w_n)
                    dh.masked_fill_(resets[t], 0)
                    if t > 0:
                        dh += dys[t - 1]
            d = d.view(4, -1, H)
            dw_hh.baddbmm_(d[1:].transpose(1, 2), h_b.reshape(1, -1, H).expand(3, -1, -1))
            dw_ih.baddbmm_(d[:3].transpose(1, 2), x[start:stop].reshape(1, -1, C).expand(3, -1, -1))
            db += d.sum(1)
            if dx is not None:
                dx_b = dx[start:stop].view(-1, C)
                torch.mm(d[0], v_n, out=dx_b).addmm_(d[1], v_r).addmm_(d[2], v_z)
            stop = start
        dw_ih = dw_ih.roll(-1, 0).view(3 * H, C)
        db_n, db_r, db_z, db_hn = db.unbind()
        db_ih, db_hh = torch.cat([db_r, db_z, db_n]), torch.cat([db_r, db_z, db_hn])
        return dx, dh, None, dw_ih, dw_hh.view(3 * H, H), db_ih, db_hh


def _steps(batch: int, width: int) -> int:
    return max(1, _BLOCK // (batch * width))
