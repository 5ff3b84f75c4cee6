"""Laws of gated linear attention: token loop = sums = chunks = steps, with resets of all kinds."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from palaestra.kernels._common.runtime import HAS_TRITON
from palaestra.kernels.gla import (
    chunk_gla,
    empty_state,
    lightning_decay,
    recurrent_gla,
    step_gla,
)

B, T, H, K, V = 3, 37, 2, 5, 7
KINDS = ["plain", "head", "channel"]
RESETS: dict[str, list[int]] = {
    "none": [],
    "first": [0],
    "last": [T - 1],
    "adjacent": [9, 10, 11],
    "every step": list(range(T)),
    "chunk edges": [16, 32],
    "around chunk edges": [15, 17, 31, 33],
    "inside": [5, 21],
}
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="triton is not installed")


def make(
    kind: str, *, batch: int = B, length: int = T, seed: int = 0, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    """Inputs of an operator, the carried state and random resets among them."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype)

    x = {"q": normal(batch, length, H, K), "k": normal(batch, length, H, K)}
    x["v"] = normal(batch, length, H, V)
    if kind != "plain":
        g = normal(batch, length, H, K) if kind == "channel" else normal(batch, length, H)
        x["g"] = -g.abs()
    x["initial_state"] = normal(batch, H, K, V)
    x["reset"] = torch.rand(batch, length, generator=generator) < 0.15
    return x


def at(positions: list[int], batch: int = B, length: int = T) -> Tensor:
    reset = torch.zeros(batch, length, dtype=torch.bool)
    reset[:, positions] = True
    return reset


def run(operator: Callable[..., Any], x: dict[str, Tensor], **options: Any) -> tuple[Tensor, ...]:
    """Outputs, final state, and the gradients of all float inputs under fixed weights."""
    leaves = {n: y.detach().requires_grad_() for n, y in x.items() if y.is_floating_point()}
    o, last = operator(**(x | leaves), output_final_state=True, **options)
    generator = torch.Generator().manual_seed(9)
    weights = [torch.randn(y.shape, dtype=torch.float64, generator=generator) for y in (o, last)]
    loss = sum((y * w.to(y.dtype)).sum() for y, w in zip((o, last), weights, strict=True))
    return o, last, *torch.autograd.grad(loss, list(leaves.values()))


def assert_equal(
    found: tuple[Tensor, ...], wanted: tuple[Tensor, ...], atol: float = 1e-12
) -> None:
    for i, (x, y) in enumerate(zip(found, wanted, strict=True)):
        torch.testing.assert_close(x, y, rtol=0, atol=atol, msg=lambda m, i=i: f"result {i}: {m}")


def windowed(x: dict[str, Tensor], part: slice) -> dict[str, Tensor]:
    return {n: y if n == "initial_state" else y[:, part] for n, y in x.items()}


def by_sums(x: dict[str, Tensor]) -> Tensor:
    """The outputs as weighted sums over the tokens of the episode, without any state."""
    q, k, v = x["q"], x["k"], x["v"]
    g = x.get("g", torch.zeros(q.shape[:3], dtype=q.dtype))
    g = g if g.ndim == 4 else g.unsqueeze(-1).expand_as(k)
    o = torch.zeros_like(v)
    for b in range(len(q)):
        for t in range(q.shape[1]):
            begins = x["reset"][b, : t + 1].nonzero()
            first = int(begins[-1]) if len(begins) else 0
            for j in range(first, t + 1):
                weight = (q[b, t] * k[b, j] * g[b, j + 1 : t + 1].sum(0).exp()).sum(-1)
                o[b, t] += weight.unsqueeze(-1) * v[b, j]
            if not len(begins):
                q_t = q[b, t] * g[b, : t + 1].sum(0).exp()
                o[b, t] += (q_t.unsqueeze(-1) * x["initial_state"][b]).sum(-2)
    return o * q.shape[-1] ** -0.5


@pytest.mark.parametrize("kind", KINDS)
def test_the_loop_is_a_sum_over_the_tokens_of_the_episode(kind: str) -> None:
    x = make(kind)
    assert_equal((recurrent_gla(**x)[0],), (by_sums(x),))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("positions", RESETS.values(), ids=RESETS.keys())
def test_a_chunk_is_the_loop_whatever_the_resets(kind: str, positions: list[int]) -> None:
    x = make(kind) | {"reset": at(positions)}
    assert_equal(run(chunk_gla, x, chunk_size=16), run(recurrent_gla, x))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk_size", [16, 32, 64, 128])
def test_the_chunk_size_does_not_matter(kind: str, chunk_size: int) -> None:
    x = make(kind)
    assert_equal(run(chunk_gla, x, chunk_size=chunk_size), run(recurrent_gla, x))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 31, 33])
def test_odd_lengths_are_right(kind: str, length: int) -> None:
    x = make(kind, length=length)
    assert_equal(run(chunk_gla, x, chunk_size=16), run(recurrent_gla, x))


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_the_loop(kind: str) -> None:
    x = make(kind)
    state, rows = x["initial_state"], []
    for t in range(T):
        qkv, g = (x[n][:, t] for n in "qkv"), x["g"][:, t] if "g" in x else None
        o, state = step_gla(*qkv, g, state, reset=x["reset"][:, t])
        rows.append(o)
    o, last = recurrent_gla(**x, output_final_state=True)
    assert torch.equal(torch.stack(rows, 1), o)
    assert torch.equal(state, last)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cut", [1, 16, 23, 36])
def test_a_window_cut_in_two_gives_the_same(kind: str, cut: int) -> None:
    x = make(kind)

    def halves(output_final_state: bool, **x: Tensor) -> tuple[Tensor, Tensor]:
        early, middle = chunk_gla(**windowed(x, slice(cut)), output_final_state=True)
        carried = x | {"initial_state": middle}
        late, last = chunk_gla(**windowed(carried, slice(cut, T)), output_final_state=True)
        return torch.cat([early, late], 1), last

    assert_equal(run(halves, x), run(chunk_gla, x))


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_packed_episodes_and_a_loop_over_episodes_agree(kind: str) -> None:
    x = make(kind, batch=1)
    x.pop("initial_state")
    bounds = [0, 0, 4, 16, 17, 17, 30, T]
    x["reset"] = at([b for b in bounds if b < T], batch=1)
    masked = chunk_gla(**x, output_final_state=True, chunk_size=16)
    cu_seqlens = torch.tensor(bounds, dtype=torch.int32)
    rest = {n: y for n, y in x.items() if n != "reset"}
    packed = chunk_gla(**rest, cu_seqlens=cu_seqlens, output_final_state=True, chunk_size=16)
    assert all(torch.equal(y, z) for y, z in zip(packed, masked, strict=True))
    alone = [
        chunk_gla(**windowed(rest, slice(i, j)), output_final_state=True)
        for i, j in pairwise(bounds)
        if i < j
    ]
    assert_equal((torch.cat([o for o, _ in alone], 1), alone[-1][1]), masked)


@pytest.mark.parametrize("kind", KINDS)
def test_a_reset_off_by_one_would_be_seen(kind: str) -> None:
    x = make(kind) | {"reset": at([5, 21])}
    late = x | {"reset": at([6, 22])}
    for y, z in zip(run(chunk_gla, x), run(recurrent_gla, late), strict=True):
        assert (y - z).abs().max() > 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_no_gradient_crosses_a_reset(kind: str) -> None:
    x = make(kind) | {"reset": at([21])}
    leaves = {n: y.requires_grad_() for n, y in x.items() if y.is_floating_point()}
    o, last = chunk_gla(**x, output_final_state=True, chunk_size=16)
    after = torch.autograd.grad(
        o[:, 21:].sum() + last.sum(), list(leaves.values()), retain_graph=True
    )
    before = torch.autograd.grad(o[:, :21].sum(), list(leaves.values()))
    for name, early, late in zip(leaves, after, before, strict=True):
        if name == "initial_state":
            assert early.count_nonzero() == 0
            assert late.count_nonzero() > 0
        else:
            assert early[:, :21].count_nonzero() == 0
            assert late[:, 21:].count_nonzero() == 0
        if name == "g":
            assert early[:, 21].count_nonzero() == 0


def gradcheck(kind: str, impl: str) -> bool:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "q": (2, 5, 1, 3),
        "k": (2, 5, 1, 3),
        "v": (2, 5, 1, 2),
        "initial_state": (2, 1, 3, 2),
    }
    if kind != "plain":
        shapes["g"] = (2, 5, 1, 3) if kind == "channel" else (2, 5, 1)
    x = {n: torch.randn(y, dtype=torch.float64, generator=generator) for n, y in shapes.items()}
    x |= {n: -y.abs() for n, y in x.items() if n == "g"}
    reset = torch.tensor([[0, 0, 0, 1, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)

    def outputs(*values: Tensor) -> Any:
        inputs = dict(zip(shapes, values, strict=True))
        return chunk_gla(**inputs, reset=reset, output_final_state=True, impl=impl)

    # Along one random direction in Triton, whose interpreter is slow.
    inputs, fast = [y.requires_grad_() for y in x.values()], impl == "triton"
    return torch.autograd.gradcheck(outputs, inputs, fast_mode=fast)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_finite_differences(kind: str) -> None:
    assert gradcheck(kind, "reference")


@needs_triton
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_in_triton_equal_finite_differences(kind: str) -> None:
    assert gradcheck(kind, "triton")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_does_not_change_another_by_one_bit(kind: str, dtype: torch.dtype) -> None:
    x = make(kind, batch=6, dtype=dtype)
    whole = run(chunk_gla, x, chunk_size=16)
    o, last = chunk_gla(**x, output_final_state=True, chunk_size=16)
    for rows in ([2], [0, 1, 2], [5, 2, 4]):
        part = chunk_gla(
            **{n: y[rows] for n, y in x.items()}, output_final_state=True, chunk_size=16
        )
        assert torch.equal(part[0], o[rows])
        assert torch.equal(part[1], last[rows])
    other = x["reset"].clone()
    other[[0, 1, 3, 4, 5]] = ~other[[0, 1, 3, 4, 5]]
    for y, z in zip(run(chunk_gla, x | {"reset": other}, chunk_size=16), whole, strict=True):
        assert torch.equal(y[2], z[2])


@pytest.mark.parametrize("kind", KINDS)
def test_two_runs_are_equal_to_the_bit(kind: str) -> None:
    x = make(kind, dtype=torch.float32)
    for y, z in zip(run(chunk_gla, x), run(chunk_gla, x), strict=True):
        assert torch.equal(y, z)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["q", "k", "v", "g", "initial_state"])
def test_a_broken_episode_does_not_reach_the_next_one(kind: str, name: str) -> None:
    x = make(kind) | {"reset": at([9, 21])}
    if name not in x:
        pytest.skip("there is no decay")
    wanted = run(chunk_gla, x, chunk_size=16)
    row = x[name] = x[name].clone()
    row[(0, 1) if name == "initial_state" else (0, 12, 1)] = torch.nan
    seen = {"q": slice(12, 13), "initial_state": slice(0, 9)}.get(name, slice(12, 21))
    o, last = chunk_gla(**x, output_final_state=True, chunk_size=16)
    assert o[0, seen, 1].isnan().all()
    o[0, seen, 1] = wanted[0][0, seen, 1]
    assert torch.equal(o, wanted[0])
    assert torch.equal(last, wanted[1])
    leaves = {n: y.requires_grad_() for n, y in x.items() if y.is_floating_point()}
    o, _ = chunk_gla(**x, chunk_size=16)
    for gradient in torch.autograd.grad(o[:, 21:].sum(), list(leaves.values())):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("kind", ["head", "channel"])
@pytest.mark.parametrize("value", [0.0, -1e-4, -50.0, -1e6, -torch.inf])
def test_any_decay_is_right(kind: str, value: float) -> None:
    x = make(kind)
    x["g"] = torch.where(x["g"] < -0.5, torch.full_like(x["g"], value), x["g"])
    found = chunk_gla(**x, output_final_state=True)
    assert_equal(found, recurrent_gla(**x, output_final_state=True))


@pytest.mark.parametrize("kind", KINDS)
def test_float32_stays_near_float64(kind: str) -> None:
    x = make(kind, length=128, dtype=torch.float32)
    found = run(chunk_gla, x)
    exact = run(chunk_gla, {n: y.double() if y.is_floating_point() else y for n, y in x.items()})
    for i, (x, y) in enumerate(zip(found, exact, strict=True)):
        assert (x - y).abs().max() / y.abs().max() <= (1e-5 if i < 2 else 5e-5), i


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_the_rounding_of_inputs_and_outputs_alone(
    kind: str, dtype: torch.dtype
) -> None:
    x = make(kind, dtype=dtype)
    x["initial_state"] = x["initial_state"].float()
    found = run(chunk_gla, x)
    exact = run(chunk_gla, {n: y.float() if y.is_floating_point() else y for n, y in x.items()})
    assert found[0].dtype == dtype
    assert found[1].dtype == torch.float32
    torch.testing.assert_close(found[0], exact[0].to(dtype), rtol=0, atol=0)
    for y, name in zip(found[2:], [n for n in x if n != "reset"], strict=True):
        assert y.dtype == x[name].dtype
        assert y.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_steps_stay_finite(kind: str) -> None:
    x = make(kind, batch=1, length=1, dtype=torch.float32)
    q, k, v = (x[n][:, 0] for n in "qkv")
    g = x["g"][:, 0] if "g" in x else torch.full((1, H), -1e-3)
    state = empty_state(1, H, K, V)
    for _ in range(10_000):
        o, state = step_gla(q, k, v, g, state)
    assert o.isfinite().all()
    torch.testing.assert_close(
        state, k[..., None] * v[..., None, :] / -torch.expm1(g.view(1, H, -1, 1)), rtol=1e-3, atol=0
    )


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_are_not_contiguous_are_right(kind: str) -> None:
    x = make(kind)
    crooked = {n: y.transpose(0, -1).contiguous().transpose(0, -1) for n, y in x.items()}
    for y, z in zip(run(chunk_gla, crooked), run(chunk_gla, x), strict=True):
        assert_equal((y,), (z,))


@pytest.mark.parametrize("kind", ["head", "channel"])
def test_it_compiles_into_one_graph(kind: str) -> None:
    x = make(kind, length=18)
    compiled = torch.compile(chunk_gla, fullgraph=True, backend="aot_eager")
    assert_equal(run(compiled, x, chunk_size=16), run(chunk_gla, x, chunk_size=16))


def test_a_step_compiles_into_one_graph() -> None:
    x = make("head")
    step = torch.compile(step_gla, fullgraph=True, backend="aot_eager")
    inputs = [x[n][:, 0] for n in ("q", "k", "v", "g")]
    state, reset = x["initial_state"], x["reset"][:, 0]
    assert_equal(step(*inputs, state, reset=reset), step_gla(*inputs, state, reset=reset))


@needs_triton
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_triton_is_the_loop(kind: str, dtype: torch.dtype) -> None:
    batch, length = (1, 19) if kind == "channel" else (2, 37)
    x = make(kind, batch=batch, length=length, dtype=dtype)
    found = run(chunk_gla, x, chunk_size=16, impl="triton")
    double = {n: y.double() if y.is_floating_point() else y for n, y in x.items()}
    for i, (y, z) in enumerate(zip(found, run(recurrent_gla, double), strict=True)):
        bound = 1e-12 if dtype == torch.float64 else 1e-5 if i < 2 else 5e-5
        assert (y - z).abs().max() / z.abs().max() <= bound, i


@needs_triton
@pytest.mark.parametrize("positions", RESETS.values(), ids=RESETS.keys())
def test_triton_is_the_loop_whatever_the_resets(positions: list[int]) -> None:
    x = make("head", batch=1) | {"reset": at(positions, batch=1)}
    assert_equal(run(chunk_gla, x, chunk_size=16, impl="triton"), run(recurrent_gla, x))


@needs_triton
@pytest.mark.parametrize("length", [1, 15, 16, 17])
def test_triton_is_right_at_odd_lengths_and_several_blocks_of_values(length: int) -> None:
    x = make("head", batch=1, length=length)
    x["v"] = torch.randn(1, length, H, 40, dtype=torch.float64)
    x["initial_state"] = torch.randn(1, H, K, 40, dtype=torch.float64)
    assert_equal(run(chunk_gla, x, impl="triton"), run(recurrent_gla, x))


@needs_triton
@pytest.mark.parametrize("value", [-50.0, -1e6, -torch.inf])
def test_any_decay_is_right_in_triton(value: float) -> None:
    x = make("head", batch=1, dtype=torch.float32)
    x["g"] = torch.where(x["g"] < -0.5, torch.full_like(x["g"], value), x["g"])
    o, _ = chunk_gla(**x, impl="triton")
    exact, _ = recurrent_gla(**{n: y.double() if n != "reset" else y for n, y in x.items()})
    assert (o - exact).abs().max() / exact.abs().max() <= 1e-6


@needs_triton
@pytest.mark.parametrize("name", ["q", "k", "v", "g", "initial_state"])
def test_a_broken_episode_ends_at_a_reset_in_triton(name: str) -> None:
    x = make("head", batch=2) | {"reset": at([9, 21], batch=2)}
    wanted, last = chunk_gla(**x, output_final_state=True, chunk_size=16, impl="triton")
    row = x[name] = x[name].clone()
    row[(0, 1) if name == "initial_state" else (0, 12, 1)] = torch.nan
    o, last_o = chunk_gla(**x, output_final_state=True, chunk_size=16, impl="triton")
    seen = {"q": slice(12, 13), "initial_state": slice(0, 9)}.get(name, slice(12, 21))
    assert o[0, seen, 1].isnan().all()
    o[0, seen, 1] = wanted[0, seen, 1]
    assert torch.equal(o, wanted)
    assert torch.equal(last_o, last)


@needs_triton
def test_rows_do_not_change_each_other_by_one_bit_in_triton() -> None:
    x = make("head", batch=3, length=20, dtype=torch.float32)
    whole, _ = chunk_gla(**x, impl="triton")
    part, _ = chunk_gla(**{n: y[[2, 0]] for n, y in x.items()}, impl="triton")
    assert torch.equal(part, whole[[2, 0]])


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_triton_in_low_precision_is_near_the_reference(dtype: torch.dtype) -> None:
    x = make("head", batch=1, dtype=dtype)
    x["initial_state"] = x["initial_state"].float()
    exact = run(recurrent_gla, {n: y.double() if n != "reset" else y for n, y in x.items()})
    low = run(recurrent_gla, x)
    for y, z, other in zip(run(chunk_gla, x, impl="triton"), exact, low, strict=True):
        band = torch.finfo(dtype).eps * z.abs().max()
        assert y.isfinite().all()
        assert (y - z).abs().max() <= 2 * (other - z).abs().max() + band


def acts(
    x: dict[str, Tensor], impl: str, inplace: bool = False, **options: Any
) -> tuple[Tensor, Tensor]:
    """Outputs of steps and the last state."""
    state, rows = x["initial_state"].clone(), []
    for t in range(x["q"].shape[1]):
        g, reset = x["g"][:, t] if "g" in x else None, x["reset"][:, t]
        now, before = [x[n][:, t] for n in ("q", "k", "v")], state.clone()
        o, new = step_gla(*now, g, state, reset=reset, inplace=inplace, impl=impl, **options)
        assert (new is state) == inplace
        assert inplace or torch.equal(state.nan_to_num(), before.nan_to_num())
        rows.append(o)
        state = new
    return torch.stack(rows, 1), state


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_in_place_is_a_step(kind: str) -> None:
    x = make(kind, length=5)
    assert_equal(acts(x, "reference", inplace=True), acts(x, "reference"), atol=0)


@needs_triton
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("widths", [(5, 7), (20, 60), (16, 32)])
@pytest.mark.parametrize("inplace", [False, True])
def test_steps_of_triton_are_steps_of_the_reference(
    kind: str, widths: tuple[int, int], inplace: bool
) -> None:
    x = make(kind, length=4) | {"reset": at([2], length=4)}
    generator = torch.Generator().manual_seed(5)
    for name, width in (("q", 0), ("k", 0), ("v", 1)):
        shape = (*x[name].shape[:3], widths[width])
        x[name] = torch.randn(shape, dtype=torch.float64, generator=generator)
    if kind == "channel":
        x["g"] = -x["k"].abs().flip(1)
    x["initial_state"] = torch.randn(B, H, *widths, dtype=torch.float64, generator=generator)
    x["reset"][0, 0] = True
    x["initial_state"][0] = torch.nan
    found = acts(x, "triton", inplace)
    assert all(y.isfinite().all() for y in found)
    assert_equal(found, acts(x, "reference"))


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_step_of_triton_errs_by_rounding_alone(dtype: torch.dtype) -> None:
    x = make("channel", length=5, dtype=dtype)
    x["initial_state"] = x["initial_state"].float()
    exact = acts({n: y.double() if n != "reset" else y for n, y in x.items()}, "reference")
    for y, z, bound in zip(acts(x, "triton"), exact, (torch.finfo(dtype).eps, 0), strict=True):
        assert y.dtype == (dtype if bound else torch.float32)
        assert (y - z).abs().max() <= max(bound, 1e-5) * z.abs().max()


@needs_triton
def test_a_step_of_triton_forgets_all_where_the_decay_is_minus_infinity() -> None:
    x = make("head", length=1)
    x["g"] = torch.full_like(x["g"], -torch.inf)
    assert_equal(acts(x, "triton"), acts(x | {"reset": at([0], length=1)}, "triton"))


@needs_triton
def test_a_step_of_triton_reads_views_and_refuses_what_it_cannot_do() -> None:
    x = make("head", length=2)
    views = {n: y.mT.contiguous().mT for n, y in x.items()}
    assert_equal(acts(views, "triton"), acts(x, "triton"), atol=0)
    now = [x[n][:, 0] for n in ("q", "k", "v", "g")]
    state = x["initial_state"]
    with pytest.raises(ValueError, match="impl: 'triton' gives no gradients of a step"):
        step_gla(*now[:3], now[3].requires_grad_(), state, impl="triton")
    with torch.no_grad(), pytest.raises(ValueError, match="state: it has to be contiguous"):
        step_gla(*now, views["initial_state"], inplace=True, impl="triton")
    with pytest.raises(ValueError, match="impl: 'cuda' is not accepted"):
        step_gla(*now, state, impl="cuda")  # type: ignore[arg-type]


def test_the_slopes_of_lightning_are_those_of_alibi() -> None:
    assert lightning_decay(8).tolist() == [-(2.0**-h) for h in range(1, 9)]
    slopes = lightning_decay(6, like=torch.zeros((), dtype=torch.float64))
    expected = [-(2.0**-h) for h in (2, 4, 6, 8, 1, 3)]
    torch.testing.assert_close(slopes, torch.tensor(expected, dtype=torch.float64))
    assert lightning_decay(1).tolist() == [-(2.0**-8)]


def test_the_schedule_by_layers_ends_in_no_decay() -> None:
    assert lightning_decay(4, layer=0, layers=2).tolist() == [0, -2, -4, -6]
    assert lightning_decay(4, layer=1, layers=2).tolist() == [0, -1, -2, -3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"heads": 0}, "heads: 0"),
        ({"heads": 2, "layer": 1}, "layer, layers"),
        ({"heads": 2, "layer": 2, "layers": 2}, "layer: 2"),
    ],
)
def test_wrong_schedules_are_named(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        lightning_decay(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(B, T, H)}, "q: float32"),
        ({"q": torch.zeros(B, T, H, K, dtype=torch.int64)}, "q: int64"),
        ({"k": torch.zeros(B, T, H, K + 1)}, "k: float32"),
        ({"k": torch.zeros(B, T, H, K, dtype=torch.float64)}, "k: float64"),
        ({"v": torch.zeros(B, T + 1, H, V)}, "v: float32"),
        ({"g": torch.zeros(B, T)}, "g: float32"),
        ({"g": torch.zeros(B, T, H, dtype=torch.int64)}, "g: int64"),
        ({"initial_state": torch.zeros(B, H, V, K)}, "initial_state: float32"),
        ({"initial_state": torch.zeros(B, H, K, V, dtype=torch.float64)}, "initial_state: float64"),
        ({"reset": torch.zeros(B, T)}, "reset: torch.float32"),
        ({"reset": at([]), "cu_seqlens": torch.tensor([0, T])}, "reset, cu_seqlens"),
        ({"chunk_size": 48}, "chunk_size: 48"),
        ({"impl": "cuda"}, "impl: 'cuda'"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], message: str) -> None:
    x: dict[str, Any] = {
        "q": torch.zeros(B, T, H, K),
        "k": torch.zeros(B, T, H, K),
        "v": torch.zeros(B, T, H, V),
    }
    with pytest.raises(ValueError, match=f"^{message}"):
        chunk_gla(**(x | change))
