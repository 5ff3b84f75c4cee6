"""Laws of the delta rule: chunks, steps and sums agree, and nothing crosses a reset."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from palaestra.kernels._common.runtime import HAS_TRITON
from palaestra.kernels.delta import chunk_delta, recurrent_delta, step_delta
from palaestra.kernels.delta.chunk import DeltaChunk

T = 37
RESETS = {
    "none": [],
    "first": [0],
    "last": [T - 1],
    "adjacent": [5, 6, 7],
    "every step": list(range(T)),
    "chunk edges": [16, 32],
    "beside the edges": [15, 17, 31, 33],
    "inside": [2, 9, 20],
}
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="the package triton is missing")
IMPLS = ["reference", pytest.param("triton", marks=needs_triton)]


class Case(NamedTuple):
    q: Tensor
    k: Tensor
    v: Tensor
    beta: Tensor
    g: Tensor | None
    state: Tensor

    def leaves(self) -> list[Tensor]:
        return [x for x in self if x is not None]

    def detached(self) -> "Case":
        return Case(*(None if x is None else x.detach().clone() for x in self))

    def cut(self, part: slice, state: Tensor) -> "Case":
        *window, _ = self
        return Case(*(None if x is None else x[:, part] for x in window), state)

    def rows(self, rows: slice | list[int]) -> "Case":
        return Case(*(None if x is None else x[rows] for x in self))


def make(
    B: int = 2,
    T: int = T,
    H: int = 2,
    K: int = 5,
    V: int = 3,
    *,
    gated: bool = True,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Case:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    g = -normal(B, T, H).abs() if gated else None
    case = Case(
        normal(B, T, H, K),
        normalize(normal(B, T, H, K), dim=-1),
        normal(B, T, H, V),
        2 * normal(B, T, H).sigmoid(),
        g,
        normal(B, H, K, V),
    )
    return Case(*(None if x is None else x.to(dtype).requires_grad_() for x in case))


def heads(impl: str) -> int:
    """Return how many heads a test takes: Triton's interpreter is slow."""
    return 1 if impl == "triton" else 2


def mask(positions: list[int], B: int = 2, T: int = T) -> Tensor:
    """The first row resets at `positions`, the second one two steps later."""
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[0, positions] = True
    reset[1] = reset[0].roll(2)
    return reset


def read(case: Case, reset: Tensor | None, impl: str = "", **options: object) -> list[Tensor]:
    """Outputs and final state; without `impl` from the loop over steps."""
    *window, state = case
    operator: Callable[..., tuple[Tensor, Tensor]] = chunk_delta if impl else recurrent_delta
    if impl:
        options["impl"] = impl
    return list(
        operator(*window, reset=reset, initial_state=state, output_final_state=True, **options)
    )


def gradients(case: Case, results: list[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(9)
    loss = sum(
        (x * torch.randn(x.shape, dtype=x.dtype, generator=generator)).sum() for x in results
    )
    return list(torch.autograd.grad(loss, case.leaves()))


def assert_equal(found: list[Tensor], wanted: list[Tensor], tolerance: float) -> None:
    """Compare by the largest error, relative to the largest number."""
    for x, y in zip(found, wanted, strict=True):
        assert x.shape == y.shape
        assert x.isfinite().all()
        error, size = (x - y).detach().abs().max(), y.detach().abs().max()
        assert error <= tolerance * max(1.0, size.item())


def by_definition(case: Case, reset: Tensor) -> list[Tensor]:
    """Each state as the sum of what its episode wrote, through products of (I - beta k k^T)."""
    q, k, v, beta, g, state = case.detached()
    B, T, H, K = q.shape
    o = torch.zeros_like(v)
    for b in range(B):
        for h in range(H):
            S = state[b, h]
            for t in range(T):
                a = 1.0 if g is None else g[b, t, h].exp()
                S = torch.zeros_like(S) if reset[b, t] else a * S
                k_t, b_t = k[b, t, h], beta[b, t, h]
                keep = torch.eye(K, dtype=S.dtype) - b_t * torch.outer(k_t, k_t)
                S = keep @ S + b_t * torch.outer(k_t, v[b, t, h])
                o[b, t, h] = K**-0.5 * (S.T @ q[b, t, h])
            state[b, h] = S
    return [o, state]


@pytest.mark.parametrize("gated", [False, True])
def test_the_loop_is_the_product_form_of_the_paper(gated: bool) -> None:
    case, reset = make(gated=gated), mask([3, 20])
    assert_equal(read(case, reset), by_definition(case, reset), 1e-13)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("positions", RESETS.values(), ids=RESETS.keys())
def test_chunks_are_the_loop_in_both_directions(
    positions: list[int], gated: bool, impl: str
) -> None:
    case, reset = make(H=heads(impl), gated=gated), mask(positions)
    found, wanted = read(case, reset, impl, chunk_size=16), read(case, reset)
    assert_equal(found, wanted, 1e-12)
    assert_equal(gradients(case, found), gradients(case, wanted), 1e-12)


@pytest.mark.parametrize("L", [1, 2, 7, 16, 37, 64])
def test_a_chunk_may_have_any_length(L: int) -> None:
    case, reset = make(), mask([3, 20])
    found = list(DeltaChunk.apply(*case, reset, 5**-0.5, L))
    wanted = read(case, reset)
    assert_equal(found, wanted, 1e-12)
    assert_equal(gradients(case, found), gradients(case, wanted), 1e-12)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    ("length", "K", "V"), [(1, 8, 20), (15, 20, 8), (16, 32, 1), (17, 1, 17), (33, 60, 70)]
)
def test_odd_lengths_and_widths_are_the_loop(length: int, K: int, V: int, impl: str) -> None:
    case, reset = make(T=length, H=1, K=K, V=V), mask([length // 2], T=length)
    found, wanted = read(case, reset, impl, chunk_size=32), read(case, reset)
    assert_equal(found, wanted, 1e-12)
    assert_equal(gradients(case, found), gradients(case, wanted), 1e-12)


@pytest.mark.parametrize("gated", [False, True])
def test_gradients_are_finite_differences(gated: bool) -> None:
    case, reset = make(T=5, H=1, K=3, V=2, gated=gated), mask([2], T=5)

    def chunks(*leaves: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v, beta, *g, state = leaves
        o, S = DeltaChunk.apply(q, k, v, beta, g[0] if g else None, state, reset, 0.7, 2)
        return o, S

    assert torch.autograd.gradcheck(chunks, case.leaves())


@needs_triton
@pytest.mark.slow
def test_gradients_of_the_kernels_are_finite_differences() -> None:
    case, reset = make(T=5, H=1, K=3, V=2), mask([2], T=5)

    def kernels(*leaves: Tensor) -> tuple[Tensor, ...]:
        return tuple(read(Case(*leaves), reset, "triton", chunk_size=16))

    assert torch.autograd.gradcheck(kernels, case.leaves(), fast_mode=True)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("cut", [1, 16, 30])
def test_windows_with_carried_state_equal_the_whole(cut: int, impl: str) -> None:
    case, reset = make(H=heads(impl)), mask([3, 20])
    o, S = read(case, reset, impl, chunk_size=16)
    head, middle = read(case.cut(slice(cut), case.state), reset[:, :cut], impl, chunk_size=16)
    tail, end = read(case.cut(slice(cut, None), middle), reset[:, cut:], impl, chunk_size=16)
    parts = [torch.cat([head, tail], 1), end]
    assert_equal(parts, [o, S], 1e-13)
    assert_equal(gradients(case, parts), gradients(case, [o, S]), 1e-12)


@pytest.mark.parametrize("gated", [False, True])
def test_steps_are_a_chunk(gated: bool) -> None:
    q, k, v, beta, g, state = make(gated=gated).detached()
    reset, rows, S = mask([3, 20]), [], state.clone()
    for t in range(T):
        g_t = None if g is None else g[:, t]
        o, S = step_delta(q[:, t], k[:, t], v[:, t], beta[:, t], g_t, S, reset=reset[:, t])
        rows.append(o)
    wanted = read(Case(q, k, v, beta, g, state), reset, "reference")
    assert_equal([torch.stack(rows, 1), S], wanted, 1e-13)


def test_a_step_without_reset_leaves_the_given_state_as_it_was() -> None:
    q, k, v, beta, g, state = make(T=1).detached()
    before = state.clone()
    step_delta(q[:, 0], k[:, 0], v[:, 0], beta[:, 0], g[:, 0], state)
    assert torch.equal(state, before)


def acts(case: Case, reset: Tensor, impl: str, inplace: bool = False) -> list[Tensor]:
    """Outputs of steps and the last state."""
    q, k, v, beta, g, given = case.detached()
    S, rows = given, []
    for t in range(q.shape[1]):
        g_t, before = None if g is None else g[:, t], S.clone()
        o, new = step_delta(
            *(x[:, t] for x in (q, k, v, beta)),
            *(g_t, S),
            reset=reset[:, t],
            inplace=inplace,
            impl=impl,
        )
        assert (new is S) == inplace
        assert inplace or torch.equal(S.nan_to_num(), before.nan_to_num())
        rows.append(o)
        S = new
    return [torch.stack(rows, 1), S]


@pytest.mark.parametrize("gated", [False, True])
def test_a_step_in_place_is_a_step(gated: bool) -> None:
    case, reset = make(T=5, gated=gated), mask([3], T=5)
    found, wanted = (acts(case, reset, "reference", inplace) for inplace in (True, False))
    assert all(map(torch.equal, found, wanted))


@needs_triton
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(("K", "V"), [(5, 3), (20, 60), (16, 32)])
@pytest.mark.parametrize("inplace", [False, True])
def test_steps_of_triton_are_steps_of_the_reference(
    gated: bool, K: int, V: int, inplace: bool
) -> None:
    case, reset = make(T=4, K=K, V=V, gated=gated).detached(), mask([0], T=4)
    case.state[0] = torch.nan
    found = acts(case, reset, "triton", inplace)
    assert_equal(found, acts(case, reset, "reference"), 1e-12)


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_step_of_triton_errs_by_rounding_alone(dtype: torch.dtype) -> None:
    case, reset = make(T=5).detached(), mask([3], T=5)
    low = Case(*(x.to(dtype) for x in case[:-1]), case.state.float())
    found, wanted = acts(low, reset, "triton"), Case(*(x.double() for x in low))
    assert [x.dtype for x in found] == [dtype, torch.float32]
    for x, y, unit in zip(
        found, acts(wanted, reset, "reference"), (torch.finfo(dtype).eps, 0), strict=True
    ):
        assert (x - y).abs().max() <= max(unit, 1e-5) * y.abs().max()


@needs_triton
def test_a_step_of_triton_reads_views_and_refuses_what_it_cannot_do() -> None:
    case, reset = make(T=2).detached(), mask([], T=2)
    views = Case(*(x.mT.contiguous().mT for x in case))
    assert all(map(torch.equal, acts(views, reset, "triton"), acts(case, reset, "triton")))
    q, k, v, beta, g = (x[:, 0] for x in case[:-1])
    with pytest.raises(ValueError, match="impl: 'triton' gives no gradients of a step"):
        step_delta(q, k, v, beta.requires_grad_(), g, case.state, impl="triton")
    with torch.no_grad(), pytest.raises(ValueError, match="state: it has to be contiguous"):
        step_delta(q, k, v, beta, g, views.state, inplace=True, impl="triton")


@pytest.mark.parametrize("impl", IMPLS)
def test_mask_and_packed_lengths_and_a_loop_over_episodes_agree(impl: str) -> None:
    case = make(H=heads(impl), B=1)
    lengths = [5, 0, 11, 1, 16, 4, 0]
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0)
    reset = torch.zeros(1, T, dtype=torch.bool)
    reset[0, cu_seqlens[:-1].clamp(max=T - 1)[:-1]] = True
    masked = read(case, reset, impl, chunk_size=16)
    packed = read(case, None, impl, chunk_size=16, cu_seqlens=cu_seqlens)
    assert all(torch.equal(x, y) for x, y in zip(masked, packed, strict=True))
    outputs = []
    for start, length in zip(cu_seqlens.tolist(), lengths, strict=False):
        if length:
            episode = case.cut(slice(start, start + length), torch.zeros_like(case.state))
            o, S = read(episode, None, impl, chunk_size=16)
            outputs.append(o)
    alone = [torch.cat(outputs, 1), S]
    assert_equal(masked, alone, 1e-13)
    for x, y in zip(gradients(case, masked)[:-1], grads_of(case, alone), strict=True):
        assert_equal([x], [y], 1e-12)


def grads_of(case: Case, results: list[Tensor]) -> list[Tensor]:
    """As `gradients`, without that of the state, which no episode reads."""
    generator = torch.Generator().manual_seed(9)
    loss = sum(
        (x * torch.randn(x.shape, dtype=x.dtype, generator=generator)).sum() for x in results
    )
    return list(torch.autograd.grad(loss, case.leaves()[:-1]))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("first", [9, 16, 20])
def test_no_gradient_crosses_a_reset(first: int, impl: str) -> None:
    case = make(H=heads(impl))
    reset = torch.zeros(2, T, dtype=torch.bool)
    reset[:, first] = True
    o, S = read(case, reset, impl, chunk_size=16)
    *window, state = torch.autograd.grad(o[:, first:].sum() + S.sum(), case.leaves())
    assert all(not dx[:, :first].any() for dx in window)
    assert all(dx[:, first:].any() for dx in window)
    assert not state.any()


@pytest.mark.parametrize("impl", IMPLS)
def test_no_gradient_comes_from_before_a_reset(impl: str) -> None:
    case = make(H=heads(impl))
    reset = torch.zeros(2, T, dtype=torch.bool)
    reset[:, 20] = True
    o, _ = read(case, reset, impl, chunk_size=16)
    *window, state = torch.autograd.grad(o[:, :20].sum(), case.leaves())
    assert all(not dx[:, 20:].any() for dx in window)
    assert state.any()


@pytest.mark.parametrize("impl", IMPLS)
def test_a_reset_at_the_wrong_step_is_seen(impl: str) -> None:
    case = make(H=heads(impl))
    right, wrong = (read(case, mask([p]), impl, chunk_size=16)[0] for p in (20, 21))
    assert (right - wrong)[0, 20:23].abs().amin() > 1e-3
    assert torch.equal(right[0, :20], wrong[0, :20])


@pytest.mark.parametrize("impl", IMPLS)
def test_a_reset_changes_no_other_row_by_one_bit(impl: str) -> None:
    case, reset = make(H=heads(impl), B=4, dtype=torch.float32), mask([3, 20]).repeat(2, 1)
    other = reset.clone()
    other[1] = ~other[1]
    one, two = (read(case, r, impl, chunk_size=16)[0] for r in (reset, other))
    assert torch.equal(one[[0, 2, 3]], two[[0, 2, 3]])
    assert not torch.equal(one[1], two[1])


def test_rows_do_not_depend_on_the_batch() -> None:
    case, reset = make(B=64, dtype=torch.float32), mask([3, 20]).repeat(32, 1)
    whole = read(case, reset, "reference")
    order = [5, 1, 40]
    for x, y in zip(read(case.rows(order), reset[order], "reference"), whole, strict=True):
        assert torch.equal(x, y[order])


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("name", ["k", "v", "beta", "g", "state"])
def test_a_broken_episode_does_not_reach_the_next_one(name: str, impl: str) -> None:
    clean = make()
    reset = torch.zeros(2, T, dtype=torch.bool)
    reset[:, 20] = True
    values = clean.detached()._asdict()
    if name == "state":
        values[name][:] = torch.nan
    else:
        values[name][:, 18] = torch.nan
    broken = Case(**{key: x.requires_grad_() for key, x in values.items()})
    wanted = read(clean, reset, impl, chunk_size=16)
    found = read(broken, reset, impl, chunk_size=16)
    first_bad = 0 if name == "state" else 18
    assert torch.equal(found[0][:, :first_bad], wanted[0][:, :first_bad])
    assert found[0][:, first_bad:20].isnan().all()
    assert_equal([found[0][:, 20:], found[1]], [wanted[0][:, 20:], wanted[1]], 1e-15)
    ours, theirs = (
        torch.autograd.grad(x[0][:, 20:].sum() + x[1].sum(), case.leaves())
        for x, case in ((found, broken), (wanted, clean))
    )
    assert_equal(list(ours), list(theirs), 1e-15)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("stress", ["no decay", "strong decay", "then weak", "beta 0", "one key"])
def test_extreme_gates_and_keys_stay_true_in_float32(stress: str, impl: str) -> None:
    q, k, v, beta, g, state = make(H=heads(impl), T=70).detached()
    if stress == "no decay":
        g = torch.zeros_like(g)
    elif stress == "strong decay":
        g = torch.full_like(g, -50)
    elif stress == "then weak":
        g = torch.where(torch.arange(70)[:, None] < 40, -50.0, -0.01) + 0 * g
    elif stress == "beta 0":
        beta = beta * (torch.arange(70)[:, None] % 2)
    else:
        k, beta = k[:, :1].expand_as(k), torch.ones_like(beta)
    exact = Case(*(x.requires_grad_() for x in (q, k.contiguous(), v, beta, g, state)))
    rounded = Case(*(x.detach().float().requires_grad_() for x in exact))
    reset = mask([30], T=70)
    wanted, found = read(exact, reset), read(rounded, reset, impl, chunk_size=64)
    assert found[0].dtype == torch.float32
    assert_equal(found, wanted, 1e-5)
    assert_equal(gradients64(rounded, found), gradients64(exact, wanted), 5e-5)


def gradients64(case: Case, results: list[Tensor]) -> list[Tensor]:
    """As `gradients`, of the same loss whatever the type."""
    generator = torch.Generator().manual_seed(9)
    weights = [torch.randn(x.shape, dtype=torch.float64, generator=generator) for x in results]
    loss = sum((x * w.to(x.dtype)).sum() for x, w in zip(results, weights, strict=True))
    return list(torch.autograd.grad(loss, case.leaves()))


def test_no_decay_given_is_decay_zero() -> None:
    case = make()
    q, k, v, beta, _, state = case
    without = Case(q, k, v, beta, None, state)
    zero = Case(q, k, v, beta, torch.zeros_like(beta), state)
    reset = mask([3, 20])
    for x, y in zip(read(without, reset, "reference"), read(zero, reset, "reference"), strict=True):
        assert torch.equal(x, y)


def test_ten_thousand_steps_stay_finite() -> None:
    q, k, v, beta, _, S = make(T=50, dtype=torch.float32).detached()
    for t in range(10_000):
        i = t % 50
        o, S = step_delta(q[:, i], k[:, i], v[:, i], beta[:, i], None, S)
    assert o.isfinite().all()
    assert S.abs().max() < 1e3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_computes_in_float32_and_returns_its_type(dtype: torch.dtype) -> None:
    case, reset = make(dtype=torch.float32), mask([3, 20])
    half = Case(*(x.detach().to(dtype) for x in case[:-1]), case.state.detach())
    half = Case(*(x.requires_grad_() for x in half))
    exact = Case(*(x.detach().float().requires_grad_() for x in half))
    found, wanted = read(half, reset, "reference"), read(exact, reset, "reference")
    assert found[0].dtype == dtype
    assert found[1].dtype == torch.float32
    assert torch.equal(found[0], wanted[0].to(dtype))
    assert torch.equal(found[1], wanted[1])
    for x, leaf in zip(gradients(half, found), half.leaves(), strict=True):
        assert x.dtype == leaf.dtype


@pytest.mark.parametrize("impl", IMPLS)
def test_views_are_read_as_their_copies(impl: str) -> None:
    case, reset = make(H=heads(impl)).detached(), mask([3, 20])
    views = Case(*(x.mT.contiguous().mT for x in case))
    for x, y in zip(
        read(views, reset.T.contiguous().T, impl), read(case, reset, impl), strict=True
    ):
        assert torch.equal(x, y)


@pytest.mark.slow
def test_it_compiles_as_one_graph() -> None:
    case, reset = make(dtype=torch.float32), mask([3, 20])
    compiled = torch.compile(read, fullgraph=True, backend="aot_eager")
    wanted, found = read(case, reset, "reference"), compiled(case, reset, "reference")
    assert_equal(found, wanted, 1e-6)
    assert_equal(gradients(case, found), gradients(case, wanted), 1e-6)


@pytest.mark.parametrize("impl", IMPLS)
def test_two_runs_are_equal_bit_by_bit(impl: str) -> None:
    case, reset = make(H=heads(impl), dtype=torch.float32), mask([3, 20])
    runs = []
    for _ in range(2):
        results = read(case, reset, impl)
        runs.append(results + gradients(case, results))
    assert all(torch.equal(x, y) for x, y in zip(*runs, strict=True))


def test_bad_arguments_are_named() -> None:
    q, k, v, beta, g, state = make().detached()
    with pytest.raises(ValueError, match=r"impl: 'cuda' is not accepted"):
        chunk_delta(q, k, v, beta, g, impl="cuda")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"chunk_size: 24 is not a power of two"):
        chunk_delta(q, k, v, beta, g, chunk_size=24)
    with pytest.raises(ValueError, match=r"k: float64 \[2, 36, 2, 5\] is not float64"):
        chunk_delta(q, k[:, 1:], v, beta, g)
    with pytest.raises(ValueError, match=r"beta: float64 \[2, 37, 2, 1\]"):
        chunk_delta(q, k, v, beta.unsqueeze(-1), g)
    with pytest.raises(ValueError, match=r"initial_state: float32"):
        chunk_delta(q, k, v, beta, g, initial_state=state.float())
    with pytest.raises(ValueError, match=r"state: .* is not float64 \[2, 2, 5, 3\]"):
        step_delta(q[:, 0], k[:, 0], v[:, 0], beta[:, 0], g[:, 0], state.mT)
    packed = torch.tensor([0, T])
    with pytest.raises(ValueError, match=r"reset, cu_seqlens"):
        chunk_delta(q, k, v, beta, g, reset=mask([]), cu_seqlens=packed)
