"""Laws of Mesa: ridge regression, sums, loop = chunk = step, resets, solves, stress."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from palaestra.kernels._common.runtime import HAS_TRITON
from palaestra.kernels.mesa import (
    MesaResiduals,
    MesaState,
    chunk_mesa,
    empty_state,
    recurrent_mesa,
    step_mesa,
)

B, T, H, K, V = 3, 37, 2, 5, 7

EXACT = {"num_steps": 40, "tol": 1e-14}

RESETS = [[], [0], [T - 1], range(T), [7, 8, 9], [16, 32], [5, 20]]
"""Nowhere, first, last, every, adjacent, on the edges of chunks, inside of them."""

needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="the package triton is not installed")

FORMS = [
    pytest.param({"impl": "reference", "chunk_size": 16}, id="reference"),
    pytest.param({"impl": "triton", "chunk_size": 16}, id="triton", marks=needs_triton),
]
"""The chunk forms, in chunks of which the window has several and a part of one."""


def window_of(options: dict[str, Any]) -> tuple[int, int, int, int, int]:
    """Return the sizes of a window; a smaller one for Triton, whose interpreter is slow."""
    return (2, 20, 1, K, V) if options["impl"] == "triton" else (B, T, H, K, V)


def make(
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    shape: tuple[int, int, int, int, int] = (B, T, H, K, V),
) -> tuple[list[Tensor], Tensor, MesaState]:
    """Return q, k, v, g, beta, lamb, resets and a carried state."""
    b, t, h, dk, dv = shape
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, dtype=torch.float64, generator=generator)

    q, k, v = normal(b, t, h, dk), normalize(normal(b, t, h, dk), dim=-1), normal(b, t, h, dv)
    g, beta, lamb = -normal(b, t, h).abs() / 5, normal(b, t, h).sigmoid(), 0.25 + normal(h, dk) ** 2
    root, hkv = normal(b, h, dk, dk), normal(b, h, dk, dv)
    inputs = [x.to(dtype).requires_grad_() for x in (q, k, v, g, beta, lamb)]
    hkk, hkv = ((x.to(dtype).requires_grad_()) for x in (root @ root.mT, hkv))
    return inputs, torch.rand(b, t, generator=generator) < 0.1, MesaState(hkk, hkv)


def read(
    form: Callable[..., Any], inputs: list[Tensor], reset: Tensor, state: MesaState, **options: Any
) -> list[Tensor]:
    """Return output, final state, and the gradients of a fixed mix of them."""
    o, last = form(*inputs, reset=reset, initial_state=state, output_final_state=True, **options)
    results = [o, last.hkk, last.hkv]
    generator = torch.Generator().manual_seed(7)
    mix = [torch.randn(x.shape, dtype=torch.float64, generator=generator) for x in results]
    loss = sum((x * m.to(x.dtype)).sum() for x, m in zip(results, mix, strict=True))
    return results + list(torch.autograd.grad(loss, [*inputs, state.hkk, state.hkv]))


def assert_near(ours: list[Tensor], theirs: list[Tensor], tolerance: float) -> None:
    """Compare each tensor relative to its largest number."""
    for index, (x, y) in enumerate(zip(ours, theirs, strict=True)):
        error = (x.double() - y.double()).abs().max() / y.abs().max().clamp(min=1)
        assert error <= tolerance, f"result {index}: {error:.1e}"


def steps(
    inputs: list[Tensor], reset: Tensor, state: MesaState, **options: Any
) -> tuple[Tensor, MesaState]:
    *x, lamb = inputs
    rows = []
    for t in range(reset.shape[1]):
        o, state = step_mesa(*(y[:, t] for y in x), lamb, state, reset=reset[:, t], **options)
        rows.append(o)
    return torch.stack(rows, 1), state


def sums(
    inputs: list[Tensor], reset: Tensor, do: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """Return the output and all gradients for `do`, as sums over pairs of steps of one episode."""
    q, k, v, g, beta, lamb = (x.detach() for x in inputs)
    t = torch.arange(q.shape[1])
    G = g.masked_fill(reset.unsqueeze(-1), 0).cumsum(1)
    seg = reset.cumsum(1)
    seen = ((seg.unsqueeze(2) == seg.unsqueeze(1)) & (t.unsqueeze(1) >= t)).unsqueeze(-1)
    Z = (G.unsqueeze(2) - G.unsqueeze(1)).exp() * seen  # [B, t, s, H]
    Hkk = torch.einsum("btsh,bsh,bshi,bshj->bthij", Z, beta, k, k)
    Hkv = torch.einsum("btsh,bsh,bshi,bshj->bthij", Z, beta, k, v)
    A = Hkk + torch.diag_embed(lamb)
    x = torch.linalg.solve(A, q)
    y = torch.linalg.solve(A, torch.einsum("bthij,bthj->bthi", Hkv, do))
    xk, yk, ev = (torch.einsum("bthi,bshi->btsh", a, b) for a, b in ((x, k), (y, k), (do, v)))
    dv = beta.unsqueeze(-1) * torch.einsum("btsh,btsh,bthi->bshi", Z, xk, do)
    dk = torch.einsum("btsh,bthi->bshi", Z * (ev - yk), x) - torch.einsum(
        "btsh,bthi->bshi", Z * xk, y
    )
    dbeta = (Z * (ev - yk) * xk).sum(1)
    before = [torch.cat([torch.zeros_like(S[:, :1]), S[:, :-1]], 1) for S in (Hkk, Hkv)]
    through = torch.einsum("bthi,bshij,bthj->btsh", x, before[1], do)
    through = through - torch.einsum("bthi,bshij,bthj->btsh", y, before[0], x)
    dg = (g.exp() * (Z * through).sum(1)).masked_fill(reset.unsqueeze(-1), 0)
    o = torch.einsum("bthij,bthi->bthj", Hkv, x)
    return o, (y, beta.unsqueeze(-1) * dk, dv, dg, dbeta, -(x * y).sum((0, 1)))


def test_a_step_is_ridge_regression_on_the_episode_so_far() -> None:
    (q, k, v, g, beta, lamb), _, _ = make()
    g, beta, lamb = torch.zeros_like(g), torch.ones_like(beta), torch.full_like(lamb, 0.3)
    o, _ = chunk_mesa(q, k, v, g, beta, lamb, chunk_size=16, **EXACT)
    for t in (0, 3, 16, 36):
        x, y = k[1, : t + 1, 0], v[1, : t + 1, 0]
        rows = torch.cat([x, 0.3**0.5 * torch.eye(K, dtype=x.dtype)])
        targets = torch.cat([y, torch.zeros(K, V, dtype=x.dtype)])
        fit = torch.linalg.lstsq(rows, targets).solution
        torch.testing.assert_close(o[1, t, 0], q[1, t, 0] @ fit, rtol=0, atol=1e-12)


@pytest.mark.parametrize("solver", ["cg", "cholesky"])
def test_outputs_and_gradients_are_the_sums_over_pairs(solver: str) -> None:
    inputs, reset, _ = make()
    do = torch.randn(B, T, H, V, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    expected, gradients = sums(inputs, reset, do)
    for form, options in ((recurrent_mesa, {}), (chunk_mesa, {"chunk_size": 16})):
        o, _ = form(*inputs, reset=reset, solver=solver, **EXACT, **options)
        ours = torch.autograd.grad(o, inputs, do)
        assert_near([o, *ours], [expected, *gradients], 1e-12)


@pytest.mark.parametrize("num_steps", [0, 1, 3, 40])
@pytest.mark.parametrize("options", FORMS)
def test_a_chunk_is_the_loop_in_both_directions_converged_or_not(
    num_steps: int, options: dict[str, Any]
) -> None:
    inputs, reset, state = make(shape=window_of(options))
    solve = {"num_steps": num_steps, "tol": 1e-13}
    loop = read(recurrent_mesa, inputs, reset, state, **solve)
    assert_near(read(chunk_mesa, inputs, reset, state, **solve, **options), loop, 1e-12)


@pytest.mark.parametrize("options", FORMS)
def test_resets_may_stand_anywhere(options: dict[str, Any]) -> None:
    inputs, _, state = make(shape=(len(RESETS), T, 1, K, V))
    reset = torch.zeros(len(RESETS), T, dtype=torch.bool)
    for row, places in zip(reset, RESETS, strict=True):
        row[list(places)] = True
    loop = read(recurrent_mesa, inputs, reset, state, **EXACT)
    assert_near(read(chunk_mesa, inputs, reset, state, **EXACT, **options), loop, 1e-12)


@pytest.mark.parametrize("options", FORMS)
def test_mask_packed_rows_and_separate_episodes_are_the_same(options: dict[str, Any]) -> None:
    inputs, _, _ = make(shape=(1, T, H, K, V))
    ends = [0, 1, 1, 9, 16, 30, 37, 37]
    reset = torch.zeros(1, T, dtype=torch.bool)
    reset[0, [0, 1, 9, 16, 30]] = True
    options = {**options, **EXACT, "output_final_state": True}
    masked, last = chunk_mesa(*inputs, reset=reset, **options)
    packed, last_packed = chunk_mesa(*inputs, cu_seqlens=torch.tensor(ends), **options)
    assert torch.equal(masked, packed)
    *x, lamb = inputs
    episodes = [
        chunk_mesa(*(y[:, a:b] for y in x), lamb, **options) for a, b in pairwise(ends) if a < b
    ]
    assert_near([masked], [torch.cat([o for o, _ in episodes], 1)], 1e-12)
    assert last is not None
    assert last_packed is not None
    end = episodes[-1][1]
    assert end is not None
    assert torch.equal(last.hkk, last_packed.hkk)
    assert_near([last.hkk, last.hkv], [end.hkk, end.hkv], 1e-13)


@pytest.mark.parametrize("num_steps", [2, 40])
@pytest.mark.parametrize("cut", [1, 16, 29])
@pytest.mark.parametrize("options", FORMS)
def test_windows_with_carried_state_and_single_steps_equal_the_whole(
    options: dict[str, Any], cut: int, num_steps: int
) -> None:
    inputs, reset, state = make(shape=(2, T, 1, K, V))
    *x, lamb = (y.detach() for y in inputs)
    options = {**options, "num_steps": num_steps, "tol": 1e-13, "output_final_state": True}
    whole, last = chunk_mesa(*x, lamb, reset=reset, initial_state=state, **options)
    head, state_cut = chunk_mesa(
        *(y[:, :cut] for y in x), lamb, reset=reset[:, :cut], initial_state=state, **options
    )
    tail, end = chunk_mesa(
        *(y[:, cut:] for y in x), lamb, reset=reset[:, cut:], initial_state=state_cut, **options
    )
    stepped, step_end = steps([*x, lamb], reset, state, num_steps=num_steps, tol=1e-13)
    assert last is not None
    assert end is not None
    assert_near([torch.cat([head, tail], 1), end.hkk, end.hkv], [whole, last.hkk, last.hkv], 1e-12)
    assert_near([stepped, step_end.hkk, step_end.hkv], [whole, last.hkk, last.hkv], 1e-12)


@pytest.mark.parametrize("chunk_size", [32, 64])
def test_the_chunk_size_does_not_matter(chunk_size: int) -> None:
    inputs, reset, state = make(shape=(2, 70, 2, K, V))
    small = read(chunk_mesa, inputs, reset, state, chunk_size=16, num_steps=4)
    assert_near(
        read(chunk_mesa, inputs, reset, state, chunk_size=chunk_size, num_steps=4), small, 1e-12
    )


@pytest.mark.parametrize("solver", ["cg", "cholesky"])
def test_gradients_are_finite_differences(solver: str) -> None:
    inputs, _, _ = make(shape=(2, 5, 1, 3, 2))
    generator = torch.Generator().manual_seed(1)
    root, hkv = (
        torch.randn(2, 1, 3, width, dtype=torch.float64, generator=generator, requires_grad=True)
        for width in (3, 2)
    )
    reset = torch.tensor([[0, 0, 0, 1, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)

    def run(root: Tensor, hkv: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        o, state = chunk_mesa(
            *inputs,
            reset=reset,
            initial_state=MesaState(root @ root.mT, hkv),
            output_final_state=True,
            solver=solver,
            chunk_size=16,
            **EXACT,
        )
        assert state is not None
        return o, state.hkk, state.hkv

    assert torch.autograd.gradcheck(run, (root, hkv, *inputs))


@pytest.mark.parametrize("options", FORMS)
def test_no_gradient_crosses_a_reset(options: dict[str, Any]) -> None:
    inputs, _, state = make()
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[:, 19] = True
    options = {**options, "num_steps": 3, "output_final_state": True}
    o, last = chunk_mesa(*inputs, reset=reset, initial_state=state, **options)
    assert last is not None
    loss = o[:, 19:].sum() + last.hkk.sum() + last.hkv.sum()
    *per_step, _, dhkk, dhkv = torch.autograd.grad(loss, [*inputs, state.hkk, state.hkv])
    for gradient in per_step:
        assert not gradient[:, :19].any()
        assert gradient[:, 20:].any()
    assert not dhkk.any()
    assert not dhkv.any()


@pytest.mark.parametrize("options", FORMS)
def test_a_broken_episode_or_state_does_not_reach_the_next_one(options: dict[str, Any]) -> None:
    inputs, _, state = make()
    options = {**options, "num_steps": 3}
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[:, [3, 19]] = True
    spoilt = [x.detach().clone() for x in inputs]
    for x, t in zip(spoilt[:5], (6, 8, 9, 10, 11), strict=True):
        x[0, t] = torch.nan
    hkk = state.hkk.detach().clone()
    hkk[1, 1, 0, 0] = torch.inf
    spoilt = [x.requires_grad_() for x in spoilt]
    expected = chunk_mesa(*inputs, reset=reset, initial_state=state, **options)[0]
    carried = MesaState(hkk, state.hkv)
    o, last = chunk_mesa(
        *spoilt, reset=reset, initial_state=carried, output_final_state=True, **options
    )
    broken = torch.zeros(B, T, H, dtype=torch.bool)
    broken[0, 6] = broken[0, 8:19] = broken[1, :3, 1] = True
    assert torch.equal(o.isnan().any(-1), broken)
    assert torch.equal(o[~broken], expected[~broken])
    assert last is not None
    assert last.hkk.isfinite().all()
    ours = torch.autograd.grad(o[:, 19:].sum(), spoilt)
    theirs = torch.autograd.grad(expected[:, 19:].sum(), inputs)
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-13)


@pytest.mark.parametrize("options", FORMS)
def test_a_row_changes_no_other_row_by_one_bit(options: dict[str, Any]) -> None:
    inputs, reset, state = make(dtype=torch.float32)
    options = {**options, "num_steps": 3}
    other = reset.clone()
    other[1] = ~other[1]
    changed = [x.detach().clone() for x in inputs]
    for x in changed[:3]:
        x[1] *= 3
    one = chunk_mesa(*inputs, reset=reset, initial_state=state, **options)[0]
    two = chunk_mesa(*changed, reset=other, initial_state=state, **options)[0]
    assert torch.equal(one[[0, 2]], two[[0, 2]])
    assert not torch.equal(one[1], two[1])


def test_a_reset_off_by_one_is_another_result() -> None:
    inputs, _, state = make()
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[:, 19] = True
    right = chunk_mesa(*inputs, reset=reset, initial_state=state)[0]
    wrong = chunk_mesa(*inputs, reset=reset.roll(1, 1), initial_state=state)[0]
    assert torch.equal(right[:, :19], wrong[:, :19])
    assert (right - wrong)[:, 19].abs().amax((1, 2)).min() > 1e-2


def test_zero_steps_are_gated_linear_attention_with_scaled_queries() -> None:
    inputs, _, _ = make()
    q, k, v, g, beta, lamb = (x.detach() for x in inputs)
    o, _ = chunk_mesa(*inputs, num_steps=0, chunk_size=16)
    hkk, hkv, rows = torch.zeros(B, H, K, K).double(), torch.zeros(B, H, K, V).double(), []
    for t in range(T):
        a, bk = g[:, t, :, None, None].exp(), beta[:, t, :, None] * k[:, t]
        hkk = a * hkk + bk.unsqueeze(-1) * k[:, t].unsqueeze(-2)
        hkv = a * hkv + bk.unsqueeze(-1) * v[:, t].unsqueeze(-2)
        x = q[:, t] / (hkk.diagonal(dim1=-2, dim2=-1) + lamb)
        rows.append((x.unsqueeze(-2) @ hkv).squeeze(-2))
    assert_near([o], [torch.stack(rows, 1)], 1e-13)


@pytest.mark.parametrize("options", FORMS)
def test_residuals_of_both_solves_are_reported_and_fall(options: dict[str, Any]) -> None:
    shape = (2, 20, 1, K, V)
    inputs, reset, state = make(shape=shape)
    worst = []
    for num_steps in (1, 3, 8):
        residuals = MesaResiduals()
        o, _ = chunk_mesa(
            *inputs,
            reset=reset,
            initial_state=state,
            num_steps=num_steps,
            residuals=residuals,
            **options,
        )
        assert residuals.backward is None
        torch.autograd.grad(o.square().sum(), inputs)
        assert residuals.forward is not None
        assert residuals.backward is not None
        assert residuals.forward.shape == residuals.backward.shape == shape[:3]
        worst.append((residuals.forward.max().item(), residuals.backward.max().item()))
    assert worst[0] > worst[1] > worst[2]
    assert max(worst[2]) < 1e-6


def test_a_loose_tolerance_freezes_each_token_for_itself() -> None:
    inputs, reset, state = make(seed=2)
    residuals = MesaResiduals()
    o, _ = chunk_mesa(
        *inputs, reset=reset, initial_state=state, tol=1e-2, residuals=residuals, chunk_size=16
    )
    stepped, _ = steps(inputs, reset, state, tol=1e-2)
    assert_near([o], [stepped], 1e-12)
    assert residuals.forward is not None
    assert 1e-4 < residuals.forward.max() <= 1e-2


@pytest.mark.parametrize("options", FORMS)
def test_float32_errs_by_rounding_alone(options: dict[str, Any]) -> None:
    shape = (2, 20, 1, 16, 16)
    inputs, reset, state = make(dtype=torch.float32, shape=shape)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    true_state = MesaState(*(x.detach().double().requires_grad_() for x in (state.hkk, state.hkv)))
    expected = read(recurrent_mesa, exact, reset, true_state, **EXACT)
    ours = read(chunk_mesa, inputs, reset, state, tol=1e-7, **options)
    assert_near(ours[:3], expected[:3], 1e-5)
    assert_near(ours[3:], expected[3:], 5e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_errs_at_most_by_its_own_rounding(dtype: torch.dtype) -> None:
    inputs, reset, _ = make(dtype=dtype)
    o, state = chunk_mesa(*inputs, reset=reset, output_final_state=True, chunk_size=16)
    expected, _ = chunk_mesa(*(x.double() for x in inputs), reset=reset, chunk_size=16)
    assert o.dtype == dtype
    assert state is not None
    assert state.hkk.dtype == torch.float32
    rounding = (expected.to(dtype).double() - expected).abs().max()
    assert (o.double() - expected).abs().max() <= 2 * rounding


@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1, 1), (1, 15, 1, 8, 20), (2, 16, 1, 20, 8), (1, 17, 3, 32, 60)]
)
@pytest.mark.parametrize("options", FORMS)
def test_odd_lengths_and_widths(
    shape: tuple[int, int, int, int, int], options: dict[str, Any]
) -> None:
    inputs, reset, state = make(shape=shape)
    loop = read(recurrent_mesa, inputs, reset, state, num_steps=5)
    assert_near(read(chunk_mesa, inputs, reset, state, num_steps=5, **options), loop, 1e-11)


@pytest.mark.parametrize("options", FORMS)
@pytest.mark.parametrize("beta", [0.0, 1.0])
@pytest.mark.parametrize("constant", [False, True])
def test_extreme_gates_weights_and_keys_stay_finite(
    options: dict[str, Any], beta: float, constant: bool
) -> None:
    inputs, reset, state = make(dtype=torch.float32, shape=(3, 20, 1, K, V))
    with torch.no_grad():
        inputs[3].copy_(torch.tensor([0, -1e-4, -50]).view(3, 1, 1).expand(3, 20, 1))
        inputs[4].fill_(beta)
        inputs[5].fill_(0.25)
        if constant:
            inputs[1].copy_(inputs[1][:, :1].expand_as(inputs[1]).clone())
    for result in read(chunk_mesa, inputs, reset, state, tol=0, num_steps=12, **options):
        assert result.isfinite().all()


def test_zero_and_huge_queries_and_values_stay_finite() -> None:
    inputs, reset, state = make(dtype=torch.float32)
    for scale in (0.0, 1e-20, 1e8):
        scaled = [inputs[0] * scale, inputs[1], inputs[2] * scale, *inputs[3:]]
        o, _ = chunk_mesa(*scaled, reset=reset, initial_state=state, tol=0)
        assert o.isfinite().all()
        assert all(x.isfinite().all() for x in torch.autograd.grad(o.sum(), inputs))


@pytest.mark.slow
def test_ten_thousand_steps_of_one_key_without_decay_stay_finite() -> None:
    state, one = empty_state(1, 1, 4, 2), torch.ones(1, 1)
    k = torch.full((1, 1, 4), 0.5)
    v, lamb = torch.tensor([[[1.0, -2.0]]]), torch.full((1, 4), 0.25)
    for _ in range(10_000):
        o, state = step_mesa(k, k, v, 0 * one, one, lamb, state)
    torch.testing.assert_close(o, v, rtol=1e-4, atol=0)


@needs_triton
@pytest.mark.parametrize("widths", [(5, 7), (20, 60)])
@pytest.mark.parametrize("options", [EXACT, {"num_steps": 2, "tol": 1e-2}])
def test_steps_of_triton_are_steps_of_the_reference(
    widths: tuple[int, int], options: dict[str, Any]
) -> None:
    inputs, _, state = make(shape=(2, 4, 1, *widths))
    reset = torch.zeros(2, 4, dtype=torch.bool)
    reset[0, 0] = reset[1, 2] = True
    with torch.no_grad():
        state.hkk[0], state.hkv[0], inputs[3][0, 0] = torch.nan, torch.nan, torch.nan
        inputs[3][0, 2] = -torch.inf
        given = MesaState(state.hkk.clone(), state.hkv.clone())
        o, last = steps(inputs, reset, state, impl="triton", **options)
        expected, end = steps(inputs, reset, state, impl="reference", **options)
    assert o.isfinite().all()
    assert_near([o, last.hkk, last.hkv], [expected, end.hkk, end.hkv], 1e-12)
    for x, y in ((state.hkk, given.hkk), (state.hkv, given.hkv)):
        assert torch.equal(x.nan_to_num(), y.nan_to_num())


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_step_of_triton_errs_by_rounding_alone(dtype: torch.dtype) -> None:
    inputs, reset, state = make(dtype=dtype, shape=(2, 3, 1, 16, 16))
    exact = [x.double() for x in inputs]
    double = MesaState(state.hkk.double(), state.hkv.double())
    with torch.no_grad():
        single = MesaState(state.hkk.float(), state.hkv.float())
        o, last = steps(inputs, reset, single, impl="triton")
        expected, end = steps(exact, reset, double, impl="reference", **EXACT)
    assert o.dtype == dtype
    assert_near([o], [expected], max(torch.finfo(dtype).eps, 1e-5))
    assert_near([last.hkk, last.hkv], [end.hkk, end.hkv], 1e-5)


@needs_triton
def test_a_step_of_triton_refuses_what_it_cannot_do() -> None:
    inputs, reset, state = make(shape=(2, 1, H, K, V))
    with pytest.raises(ValueError, match="impl: 'triton' gives no gradients of a step"):
        steps(inputs, reset, state, impl="triton")
    with torch.no_grad(), pytest.raises(ValueError, match="solver: 'cholesky' needs impl"):
        steps(inputs, reset, state, impl="triton", solver="cholesky")


@pytest.mark.slow
def test_the_reference_compiles_into_one_graph() -> None:
    inputs, reset, state = make(shape=(2, 17, 1, K, V))

    def run(*inputs: Tensor) -> Tensor:
        return chunk_mesa(*inputs, reset=reset, initial_state=state, num_steps=2, chunk_size=16)[0]

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    o, expected = compiled(*inputs), run(*inputs)
    assert_near([o], [expected], 1e-12)
    ours, theirs = (torch.autograd.grad(x.square().sum(), inputs) for x in (o, expected))
    assert_near(list(ours), list(theirs), 1e-12)


def test_bad_arguments_are_named() -> None:
    (q, k, v, g, beta, lamb), reset, _ = make()
    with pytest.raises(ValueError, match="solver: 'lu' is not accepted: 'cg' or 'cholesky'"):
        chunk_mesa(q, k, v, g, beta, lamb, solver="lu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"lamb: float64 \[1, 5\] is not float64.* \[2, 5\]"):
        chunk_mesa(q, k, v, g, beta, lamb[:1])
    with pytest.raises(ValueError, match=r"beta: float64 \[3, 36, 2\]"):
        chunk_mesa(q, k, v, g, beta[:, 1:], lamb)
    with pytest.raises(ValueError, match=r"state.hkk: float32 \[3, 2, 5, 5\]"):
        chunk_mesa(q, k, v, g, beta, lamb, initial_state=empty_state(B, H, K, V))
    with pytest.raises(ValueError, match="num_steps: -1 is negative"):
        chunk_mesa(q, k, v, g, beta, lamb, num_steps=-1)
    with pytest.raises(ValueError, match=r"tol: 1 is not in \[0, 1\)"):
        chunk_mesa(q, k, v, g, beta, lamb, tol=1)
    with pytest.raises(ValueError, match="reset, cu_seqlens: one of them"):
        chunk_mesa(q, k, v, g, beta, lamb, reset=reset, cu_seqlens=torch.tensor([0, T]))
    wide = make(shape=(1, 2, 1, 33, 2))[0]
    with pytest.raises(ValueError, match="solver: 'cholesky' takes K up to 32, not 33"):
        recurrent_mesa(*wide, solver="cholesky")
