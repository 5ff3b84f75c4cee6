"""Laws of the diagonal recurrence."""

import torch
from torch import Tensor

from palaestra.kernels._common.scan import scan


def window(*shape: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    a, x = torch.randn(2, *shape, dtype=torch.float64, generator=generator)
    h0 = torch.randn(shape[0], *shape[2:], dtype=torch.float64, generator=generator)
    return a, x, h0, torch.rand(*shape[:2], generator=generator) < 0.3


def test_the_scan_equals_a_loop() -> None:
    a, x, h0, reset = window(4, 9, 2, 3)
    h, h_t = scan(a, x, h0, reset), h0
    for t in range(9):
        h_t = a[:, t] * h_t * ~reset[:, t, None, None] + x[:, t]
        torch.testing.assert_close(h[:, t], h_t, rtol=0, atol=1e-13)


def test_gradients_equal_finite_differences() -> None:
    a, x, h0, reset = window(2, 5, 3)
    inputs = [y.requires_grad_() for y in (a, x, h0)]
    assert torch.autograd.gradcheck(lambda a, x, h0: scan(a, x, h0, reset), inputs)


def test_a_window_cut_in_two_gives_the_same_states() -> None:
    a, x, h0, reset = window(3, 8, 4)
    h = scan(a, x, h0, reset)
    early = scan(a[:, :3], x[:, :3], h0, reset[:, :3])
    late = scan(a[:, 3:], x[:, 3:], early[:, -1], reset[:, 3:])
    assert torch.equal(torch.cat([early, late], 1), h)


def test_a_broken_state_and_gate_end_at_a_reset() -> None:
    a, x, h0, _ = window(3, 8, 4)
    reset = torch.zeros(3, 8, dtype=torch.bool)
    reset[:, 2] = True
    wanted = scan(a, x, h0, reset)[:, 2:]
    a[:, 2], h0 = torch.nan, torch.full_like(h0, torch.nan)
    assert torch.equal(scan(a, x, h0, reset)[:, 2:], wanted)


def test_no_gradient_crosses_a_reset() -> None:
    a, x, h0, reset = window(3, 8, 4)
    reset[:, 5] = True
    inputs = [y.requires_grad_() for y in (a, x, h0)]
    da, dx, dh0 = torch.autograd.grad(scan(a, x, h0, reset)[:, 5:].sum(), inputs)
    assert da[:, :6].count_nonzero() == dx[:, :5].count_nonzero() == dh0.count_nonzero() == 0


def test_a_row_does_not_change_another() -> None:
    a, x, h0, reset = window(5, 8, 4)
    h = scan(a, x, h0, reset)
    for b in range(5):
        assert torch.equal(
            scan(a[b : b + 1], x[b : b + 1], h0[b : b + 1], reset[b : b + 1]), h[b : b + 1]
        )


def test_it_compiles_into_one_graph() -> None:
    a, x, h0, reset = window(2, 4, 3)
    inputs = [y.requires_grad_() for y in (a, x, h0)]
    compiled = torch.compile(scan, fullgraph=True, backend="aot_eager")
    found = torch.autograd.grad(compiled(a, x, h0, reset).sum(), inputs)
    wanted = torch.autograd.grad(scan(a, x, h0, reset).sum(), inputs)
    for y, z in zip(found, wanted, strict=True):
        torch.testing.assert_close(y, z)
