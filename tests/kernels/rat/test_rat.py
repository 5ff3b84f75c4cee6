"""Laws of RAT: against a dense form, a token loop, attention, an average and finite differences."""

from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from palaestra.kernels._common.runtime import HAS_TRITON
from palaestra.kernels.rat import RatState, chunk_rat, empty_state, recurrent_rat, step_rat
from palaestra.kernels.rat.positions import chunk_positions, ends

B, T, H, G, D, L, C = 4, 29, 4, 2, 6, 4, 3

RESETS = {
    "none": [],
    "first": [0],
    "last": [T - 1],
    "every step": range(T),
    "adjacent": [6, 7],
    "end of a chunk": [3, 4, 12, 16],
    "inside a chunk": [2, 9, 14],
}


def make(
    batch: int = B,
    steps: int = T,
    heads: int = H,
    groups: int = G,
    width: int = D,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(n: int) -> Tensor:
        x = torch.randn(batch, steps, n, width, dtype=torch.float64, generator=generator)
        return x.to(dtype)

    return [normal(groups), normal(groups), normal(heads), (normal(heads) + 1).sigmoid()]


def some_resets(batch: int = B, steps: int = T, p: float = 0.08, seed: int = 1) -> Tensor:
    return torch.rand(batch, steps, generator=torch.Generator().manual_seed(seed)) < p


def some_state(
    pos: list[int], width: int = D, capacity: int = C, length: int = L, **options: Any
) -> RatState:
    """Return the state after `pos[b]` steps of random input in row b."""
    options |= dict(chunk_length=length, capacity=capacity, output_final_state=True)
    steps = max(pos) + 1
    xs = make(len(pos), steps, width=width, seed=7)
    reset = torch.zeros(len(pos), steps, dtype=torch.bool)
    for row, p in enumerate(pos):
        reset[row, steps - p] = True
    return end(recurrent_rat(*xs, reset=reset, **options))


def end(result: tuple[Tensor, RatState | None]) -> RatState:
    assert result[1] is not None
    return result[1]


def differences(one: RatState, two: RatState) -> float:
    pairs = [(getattr(one, f.name), getattr(two, f.name)) for f in fields(RatState)]
    return max(float((a.double() - b.double()).detach().abs().max()) for a, b in pairs)


def stepped(xs: list[Tensor], reset: Tensor, state: RatState, **options: Any) -> Any:
    outputs = []
    for t in range(reset.shape[1]):
        o_t, state = step_rat(*(x[:, t] for x in xs), state, reset=reset[:, t], **options)
        outputs.append(o_t)
    return torch.stack(outputs, 1), state


def dense(xs: list[Tensor], length: int, capacity: int) -> Tensor:
    """Return the outputs of one whole episode, each score and average as a sum of its own."""
    q, k, v, g = (x.transpose(1, 2) for x in xs)  # (B, H, T, D)
    heads, steps, width = v.shape[1:]
    q, k = (x[:, [h % x.shape[1] for h in range(heads)]] for x in (q, k))
    weight = torch.zeros(*v.shape[:2], steps, steps, width, dtype=q.dtype)
    for i in range(steps):
        for j in range(i - i % length, i + 1):
            weight[:, :, i, j] = (1 - g[:, :, j]) * g[:, :, j + 1 : i + 1].prod(2)
    k, v = (torch.einsum("bhijd,bhjd->bhid", weight, x) for x in (k, v))
    chunk = torch.arange(steps) // length
    angle = chunk[:, None] * 10_000.0 ** (-torch.arange(0, width, 2, dtype=q.dtype) / width)
    turn = torch.polar(torch.ones_like(angle), angle)
    q, k = (torch.complex(*x.chunk(2, 3)) * turn for x in (q, k))
    scores = (q.unsqueeze(3) * k.unsqueeze(2).conj()).real.sum(4) * width**-0.5
    i, j = torch.arange(steps)[:, None], torch.arange(steps)
    lag = chunk[:, None] - chunk
    allowed = ((j % length == length - 1) & (lag > 0) & (lag <= capacity)) | (i == j)
    P = scores.masked_fill(~allowed, -torch.inf).softmax(3)
    return (P @ v).transpose(1, 2)


def by_episodes(xs: list[Tensor], reset: Tensor, length: int, capacity: int) -> Tensor:
    """Return the outputs of every episode read alone."""
    o = torch.empty_like(xs[2])
    for row, mask in enumerate(reset):
        bounds = sorted({0, *mask.nonzero().flatten().tolist(), reset.shape[1]})
        for a, b in pairwise(bounds):
            o[row, a:b] = dense([x[row : row + 1, a:b] for x in xs], length, capacity)[0]
    return o


@pytest.mark.parametrize("name", RESETS)
@pytest.mark.parametrize("form", [chunk_rat, recurrent_rat])
def test_every_reset_pattern_is_a_dense_read_of_each_episode(form: Any, name: str) -> None:
    xs, reset = make(), torch.zeros(B, T, dtype=torch.bool)
    reset[:, list(RESETS[name])] = True
    o, _ = form(*xs, reset=reset, chunk_length=L, capacity=C)
    expected = by_episodes(xs, reset, L, C)
    torch.testing.assert_close(o, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 4, 7, 16, 40])
@pytest.mark.parametrize("capacity", [1, 3, 40])
def test_rows_with_resets_of_their_own_are_dense_reads_of_their_episodes(
    length: int, capacity: int
) -> None:
    xs, reset = make(), some_resets()
    expected = by_episodes(xs, reset, length, capacity)
    for form in (chunk_rat, recurrent_rat):
        o, _ = form(*xs, reset=reset, chunk_length=length, capacity=capacity)
        torch.testing.assert_close(o, expected, rtol=0, atol=1e-12)


def test_packed_episodes_are_the_same_as_a_reset_mask() -> None:
    xs = make(1)
    cu_seqlens = torch.tensor([0, 5, 5, 6, 20, T, T], dtype=torch.int32)
    reset = torch.zeros(1, T, dtype=torch.bool)
    reset[0, [0, 5, 6, 20]] = True
    one = chunk_rat(*xs, cu_seqlens=cu_seqlens, chunk_length=L, output_final_state=True)
    two = chunk_rat(*xs, reset=reset, chunk_length=L, output_final_state=True)
    assert torch.equal(one[0], two[0])
    assert differences(end(one), end(two)) == 0
    torch.testing.assert_close(one[0], by_episodes(xs, reset, L, T), rtol=0, atol=1e-12)


@pytest.mark.parametrize("cut", [1, 4, 5, 13, T])
@pytest.mark.parametrize("length", [1, 3, 4])
@pytest.mark.parametrize("p", [0.0, 0.1])
def test_cut_windows_and_single_steps_equal_the_whole(cut: int, length: int, p: float) -> None:
    xs, reset = make(), some_resets(p=p)
    state = some_state([1, 3, 8, 30], length=length)
    options = dict(chunk_length=length, output_final_state=True)
    whole = chunk_rat(*xs, reset=reset, initial_state=state, **options)
    looped = recurrent_rat(*xs, reset=reset, initial_state=state, **options)
    steps = stepped(xs, reset, state, chunk_length=length)
    outputs, middle = [], state
    for a in range(0, T, cut):
        part = chunk_rat(
            *(x[:, a : a + cut] for x in xs),
            reset=reset[:, a : a + cut],
            initial_state=middle,
            **options,
        )
        outputs.append(part[0])
        middle = end(part)
    windows = torch.cat(outputs, 1), middle
    for other in (looped, steps, windows):
        torch.testing.assert_close(other[0], whole[0], rtol=0, atol=1e-13)
        assert differences(end(other), end(whole)) < 1e-13


def test_without_a_state_all_finished_chunks_of_the_window_are_seen() -> None:
    xs, reset = make(), some_resets()
    expected, _ = chunk_rat(*xs, reset=reset, chunk_length=L, capacity=T)
    assert torch.equal(chunk_rat(*xs, reset=reset, chunk_length=L)[0], expected)


def test_a_long_episode_forgets_what_lies_more_than_c_chunks_back() -> None:
    xs = make(1, 40)
    other = [x.clone() for x in xs]
    for x in other:
        x[:, :L] = 1 - x[:, :L]
    one, two = (chunk_rat(*x, chunk_length=L, capacity=C)[0] for x in (xs, other))
    assert torch.equal(one[:, (C + 1) * L :], two[:, (C + 1) * L :])
    assert (one[:, (C + 1) * L - 1] != two[:, (C + 1) * L - 1]).any()


def test_with_chunks_of_one_step_and_closed_gates_it_is_causal_attention() -> None:
    q, k, v, g = make(groups=H)
    o, _ = chunk_rat(q, k, v, torch.zeros_like(g), chunk_length=1, rope_base=None)
    expected = torch.nn.functional.scaled_dot_product_attention(
        *(x.transpose(1, 2) for x in (q, k, v)), is_causal=True
    )
    torch.testing.assert_close(o, expected.transpose(1, 2), rtol=0, atol=1e-13)


def test_in_the_first_chunk_the_output_is_the_running_average() -> None:
    q, k, v, g = make()
    o, _ = chunk_rat(q, k, v, g, chunk_length=T)
    average = torch.zeros(B, H, D, dtype=torch.float64)
    for t in range(T):
        average = g[:, t] * average + (1 - g[:, t]) * v[:, t]
        torch.testing.assert_close(o[:, t], average, rtol=0, atol=1e-14)


@pytest.mark.parametrize("s", [0, 10, 11, 12, 28])
def test_a_step_changes_no_earlier_output(s: int) -> None:
    xs = make()
    later = [x.clone() for x in xs]
    for x in later:
        x[:, s] = 1 - x[:, s]
    one, two = (chunk_rat(*x, chunk_length=L)[0] for x in (xs, later))
    assert torch.equal(one[:, :s], two[:, :s])
    assert (one[:, s] != two[:, s]).any()


def test_finished_chunks_fit_one_to_each_l_steps_whatever_the_resets() -> None:
    for seed in range(20):
        reset = some_resets(30, T, 0.15, seed)
        pos = torch.randint(0, 9, (30,), generator=torch.Generator().manual_seed(seed))
        inside = chunk_positions(reset, pos, L).inside
        found = ends(inside, L)
        assert found.shape == (30, -(-T // L))
        for row, at in enumerate(found):
            expected = (inside[row] == L - 1).nonzero().flatten()
            assert at[at < T].tolist() == expected.tolist()


def window(
    parameters: tuple[Tensor, ...],
    reset: Tensor,
    form: Any,
    state: RatState | None = None,
    **options: Any,
) -> list[Tensor]:
    """Return what a window gives, as a function of everything that carries a gradient."""
    q, k, v, g, k_run, v_run = parameters
    state = some_state([6, 3], D, 2) if state is None else state
    state = RatState(state.k_end, state.v_end, k_run, v_run, state.pos)
    options = {"chunk_length": L, "output_final_state": True} | options
    o, last = form(q, k, v, g, reset=reset, initial_state=state, **options)
    return [o, last.k_end, last.v_end, last.k_run, last.v_run]


def parameters(steps: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    run = [torch.randn(2, H, D, dtype=torch.float64, generator=generator) for _ in range(2)]
    return tuple(x.requires_grad_() for x in [*make(2, steps), *run])


def gradients(outputs: list[Tensor], inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    loss = sum(
        (o * torch.randn(o.shape, dtype=o.dtype, generator=generator)).sum() for o in outputs
    )
    return torch.autograd.grad(loss, inputs)


def test_gradients_are_finite_differences_with_a_carried_state() -> None:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    inputs = [normal(2, 5, 1, 4), normal(2, 5, 1, 4), normal(2, 5, 2, 4)]
    inputs += [normal(2, 5, 2, 4).sigmoid(), normal(2, 2, 4), normal(2, 2, 4)]
    slots = normal(2, 2, 2, 4), normal(2, 2, 2, 4)
    reset = torch.tensor([[0, 0, 0, 1, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
    pos = torch.tensor([4, 5], dtype=torch.int32)

    def read(q: Tensor, k: Tensor, v: Tensor, g: Tensor, k_run: Tensor, v_run: Tensor) -> Any:
        state = RatState(*slots, k_run, v_run, pos)
        o, last = chunk_rat(
            *(q, k, v, g),
            reset=reset,
            chunk_length=2,
            initial_state=state,
            output_final_state=True,
        )
        assert last is not None
        return o, last.k_end, last.v_end, last.k_run, last.v_run

    assert torch.autograd.gradcheck(read, tuple(x.requires_grad_() for x in inputs), fast_mode=True)


@pytest.mark.parametrize("p", [0.0, 0.1, 1.0])
def test_gradients_are_those_of_the_token_loop(p: float) -> None:
    inputs, reset = parameters(T), some_resets(2, T, p)
    ours = gradients(window(inputs, reset, chunk_rat), inputs)
    theirs = gradients(window(inputs, reset, recurrent_rat), inputs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_no_gradient_reaches_carried_finished_chunks() -> None:
    xs, state = make(), some_state([3, 5, 9, 12])
    slots = state.k_end.requires_grad_(), state.v_end.requires_grad_()
    for form in (chunk_rat, recurrent_rat):
        o, _ = form(*(x.requires_grad_() for x in xs), chunk_length=L, initial_state=state)
        assert torch.autograd.grad(o.sum(), slots, allow_unused=True) == (None, None)


@pytest.mark.parametrize("at", [8, 9, 11])
def test_no_gradient_crosses_a_reset(at: int) -> None:
    inputs, reset = parameters(T), torch.zeros(2, T, dtype=torch.bool)
    reset[:, at] = True
    outputs = window(inputs, reset, chunk_rat)
    *per_step, dk_run, dv_run = gradients([outputs[0][:, at:], *outputs[1:]], inputs)
    for gradient in per_step:
        assert not gradient[:, :at].any()
        assert gradient[:, at:].any()
    assert not dk_run.any()
    assert not dv_run.any()


def test_a_broken_episode_does_not_reach_the_next_one() -> None:
    xs, at = make(), 17
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[:, at] = True
    clean = [x.clone().requires_grad_() for x in xs]
    broken = [x.clone() for x in xs]
    for i, x in enumerate(broken):
        x[i, 5:7] = (torch.nan, torch.inf, -torch.inf, torch.nan)[i]
        x.requires_grad_()
    options = dict(reset=reset, chunk_length=L, output_final_state=True)
    expected, other = chunk_rat(*clean, **options), chunk_rat(*broken, **options)
    looped, _ = recurrent_rat(*broken, **options)
    o = other[0]
    assert torch.equal(o[:, at:], expected[0][:, at:])
    assert torch.equal(o[:, :5], expected[0][:, :5])
    assert differences(end(other), end(expected)) == 0
    torch.testing.assert_close(looped[:, at:], o[:, at:], rtol=0, atol=1e-13)
    ours = torch.autograd.grad(o[:, at:].sum(), broken)
    theirs = torch.autograd.grad(expected[0][:, at:].sum(), clean)
    assert all(torch.equal(a[:, at:], b[:, at:]) for a, b in zip(ours, theirs, strict=True))


def test_a_score_that_overflows_does_not_reach_the_next_episode() -> None:
    xs, at = make(), 17
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[:, at] = True
    clean = [x.clone().requires_grad_() for x in xs]
    large = [x.clone() for x in xs]
    for x in large[:2]:
        x[:, 5] = 1e200
    large = [x.requires_grad_() for x in large]
    expected, _ = chunk_rat(*clean, reset=reset, chunk_length=L)
    o, _ = chunk_rat(*large, reset=reset, chunk_length=L)
    looped, _ = recurrent_rat(*large, reset=reset, chunk_length=L)
    assert o[:, 5].isnan().any()
    assert torch.equal(o.isnan(), looped.isnan())
    assert torch.equal(o[:, at:], expected[:, at:])
    ours = torch.autograd.grad(o[:, at:].sum(), large)
    theirs = torch.autograd.grad(expected[:, at:].sum(), clean)
    assert all(torch.equal(a[:, at:], b[:, at:]) for a, b in zip(ours, theirs, strict=True))


def test_a_broken_key_shows_in_every_output_that_sees_it() -> None:
    q, k, v, g = make(1, groups=H)
    k[0, 2] = torch.nan
    o, _ = chunk_rat(q, k, v, g, chunk_length=L, capacity=2)
    looped, _ = recurrent_rat(q, k, v, g, chunk_length=L, capacity=2)
    seen = torch.zeros(T, dtype=torch.bool)
    seen[2 : 3 * L] = True
    assert torch.equal(o.isnan().all(3).all(2)[0], seen)
    assert torch.equal(o.isnan().any(3).any(2)[0], seen)
    assert torch.equal(looped.isnan().all(3).all(2)[0], seen)


def test_a_broken_state_ends_at_the_reset() -> None:
    xs = make()
    reset = torch.ones(B, T, dtype=torch.bool)
    reset[:, 1:] = False
    state = some_state([3, 5, 9, 12])
    for name in ("k_end", "v_end", "k_run", "v_run"):
        getattr(state, name).fill_(torch.nan)
    expected, _ = chunk_rat(*xs, chunk_length=L, capacity=C)
    o, last = chunk_rat(
        *xs, reset=reset, chunk_length=L, initial_state=state, output_final_state=True
    )
    torch.testing.assert_close(o, expected, rtol=0, atol=1e-13)
    assert last is not None
    assert all(getattr(last, f.name).isfinite().all() for f in fields(RatState))
    steps, _ = stepped(xs, reset, state, chunk_length=L)
    torch.testing.assert_close(steps, expected, rtol=0, atol=1e-13)


def test_a_reset_changes_no_other_row_by_one_bit() -> None:
    xs, reset = make(dtype=torch.float32), some_resets()
    other = reset.clone()
    other[1] = ~other[1]
    one, two = (chunk_rat(*xs, reset=r, chunk_length=L)[0] for r in (reset, other))
    assert torch.equal(one[[0, 2, 3]], two[[0, 2, 3]])
    assert not torch.equal(one[1], two[1])


@pytest.mark.parametrize("row", [0, 1])
def test_the_gradients_of_a_row_do_not_know_where_chunks_begin_in_another(row: int) -> None:
    """Rows that all begin with a chunk take a shorter way."""
    inputs, other = parameters(4 * L), torch.zeros(2, 4 * L, dtype=torch.bool)
    aligned, other = other.index_fill(1, torch.tensor([0]), True), other
    other[row, 0] = True
    found = []
    for reset in (aligned, other):
        o = window(inputs, reset, chunk_rat)[0][row]
        found.append([o, *torch.autograd.grad(o.square().sum(), inputs[:4])])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)


def test_two_reads_are_bitwise_equal() -> None:
    inputs, reset = parameters(T), some_resets(2)
    one, two = (gradients(window(inputs, reset, chunk_rat), inputs) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_a_reset_that_is_one_step_late_is_caught() -> None:
    xs, reset = make(), some_resets()
    o, _ = chunk_rat(*xs, reset=reset.roll(1, 1), chunk_length=L, capacity=C)
    assert (o - by_episodes(xs, reset, L, C)).abs().max() > 0.1


@pytest.mark.parametrize("width", [1, 2, 8, 20, 60, 100])
@pytest.mark.parametrize("steps", [1, 15, 16, 17])
def test_odd_lengths_and_widths_are_dense_reads(steps: int, width: int) -> None:
    xs, reset = make(1, steps, 3, 1, width), torch.zeros(1, steps, dtype=torch.bool)
    base = None if width == 1 else 10_000.0
    o, _ = chunk_rat(*xs, reset=reset, rope_base=base, chunk_length=5, capacity=9)
    looped, _ = recurrent_rat(*xs, reset=reset, rope_base=base, chunk_length=5, capacity=9)
    torch.testing.assert_close(o, looped, rtol=0, atol=1e-13)
    if base:
        torch.testing.assert_close(o, dense(xs, 5, 9), rtol=0, atol=1e-12)


@pytest.mark.parametrize("gate", [0.0, 1e-30, 1.0])
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_extreme_gates_and_sizes_stay_finite(gate: float, size: float) -> None:
    q, k, v, g = make(dtype=torch.float32)
    inputs = [x.requires_grad_() for x in (size * q, size * k, size * v, torch.full_like(g, gate))]
    o, _ = chunk_rat(*inputs, reset=some_resets(), chunk_length=L)
    assert o.isfinite().all()
    assert all(x.isfinite().all() for x in torch.autograd.grad(o.sum(), inputs))
    assert bool(o.any()) == (gate != 1)


@pytest.mark.slow
def test_steps_up_to_the_ten_thousandth_equal_one_window() -> None:
    xs = make(1, 1_000, 1, 1, dtype=torch.float32)
    state = empty_state(1, 1, 8, D)
    for x in (state.k_end, state.v_end, state.k_run, state.v_run):
        x.copy_(torch.randn(x.shape, generator=torch.Generator().manual_seed(5)))
    state.pos += 9_000
    reset = torch.zeros(1, 1_000, dtype=torch.bool)
    o, last = stepped(xs, reset, state)
    expected, _ = chunk_rat(*xs, initial_state=state)
    assert (o - expected).abs().max() < 1e-5
    assert last.pos.item() == 10_000


def test_single_precision_is_near_double_precision() -> None:
    xs, reset = make(2, 128, width=32), some_resets(2, 128, 0.03)
    exact, _ = chunk_rat(*xs, reset=reset)
    o, _ = chunk_rat(*(x.float() for x in xs), reset=reset)
    stepwise, _ = stepped([x.float() for x in xs], reset, empty_state(2, H, 8, 32))
    assert (o - exact).abs().max() < 1e-5 * exact.abs().max()
    assert (o - stepwise).abs().max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_alike_in_a_window_and_in_steps(dtype: torch.dtype) -> None:
    xs = make(2, 64, width=16, dtype=dtype)
    xs[3] = xs[3].float()
    reset, state = some_resets(2, 64, 0.03), empty_state(2, H, 4, 16, like=xs[0])
    o, last = chunk_rat(*xs, reset=reset, initial_state=state, output_final_state=True)
    other, _ = stepped(xs, reset, state)
    exact, _ = chunk_rat(*(x.double() for x in xs), reset=reset, capacity=4)
    assert o.dtype == dtype
    assert last is not None
    assert (last.k_end.dtype, last.k_run.dtype) == (dtype, torch.float32)
    band = torch.finfo(dtype).eps * exact.abs().max()
    assert (o.double() - exact).abs().max() < 2 * band
    assert (o.double() - other.double()).abs().max() <= band


def test_a_step_leaves_the_given_state_as_it_was() -> None:
    xs = make()
    state = empty_state(B, H, C, D, like=xs[0])
    step_rat(*(x[:, 0] for x in xs), state, chunk_length=1)
    assert not any(getattr(state, f.name).any() for f in fields(RatState))


def test_inputs_of_other_layouts_give_the_same() -> None:
    xs, reset = make(), some_resets()
    strided = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in xs]
    assert not strided[0].is_contiguous()
    one, two = (chunk_rat(*x, reset=reset, chunk_length=L)[0] for x in (xs, strided))
    torch.testing.assert_close(one, two, rtol=0, atol=1e-14)


needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="the package triton is not installed")


@needs_triton
@pytest.mark.parametrize(
    ("steps", "width", "length", "options"),
    [
        (10, 6, 4, {}),
        (5, 5, 1, {"rope_base": None}),
        (12, 20, 16, {"scale": 0.3}),
        (1, 4, 3, {}),
    ],
)
def test_the_kernels_are_the_reference(
    steps: int, width: int, length: int, options: dict[str, Any]
) -> None:
    state = some_state([6, 3], width, 2, length, **options)
    xs = [*make(2, steps, width=width), state.k_run, state.v_run]
    inputs = tuple(x.requires_grad_() for x in xs)
    reset = some_resets(2, steps, 0.1, seed=4)
    ours, plain = (
        window(inputs, reset, chunk_rat, state, chunk_length=length, impl=impl, **options)
        for impl in ("triton", "reference")
    )
    pairs = [*zip(ours, plain, strict=True)]
    pairs += zip(gradients(ours, inputs), gradients(plain, inputs), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@needs_triton
def test_the_kernels_without_a_state_are_the_reference() -> None:
    xs, reset = make(2, 9), some_resets(2, 9, 0.1, seed=4)
    options = dict(reset=reset, chunk_length=2, output_final_state=True)
    ours, plain = (chunk_rat(*xs, **options, impl=impl) for impl in ("triton", "reference"))
    torch.testing.assert_close(ours[0], plain[0], rtol=0, atol=1e-12)
    assert differences(end(ours), end(plain)) < 1e-12


@needs_triton
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_in_the_kernels_a_broken_episode_does_not_reach_the_next_one() -> None:
    at = 9
    reset = torch.zeros(1, 12, dtype=torch.bool)
    reset[:, at] = True
    options = dict(reset=reset, chunk_length=2, impl="triton")
    clean = [x.requires_grad_() for x in make(1, 12, 2, 1)]
    expected, _ = chunk_rat(*clean, **options)
    theirs = torch.autograd.grad(expected[:, at:].sum(), clean)
    broken = [x.detach().clone() for x in clean]
    for i, x in enumerate(broken):
        x[0, 3 + i] = (torch.nan, torch.inf, -torch.inf, torch.nan)[i]
        x.requires_grad_()
    o, _ = chunk_rat(*broken, **options)
    assert torch.equal(o[:, at:], expected[:, at:])
    assert torch.equal(o[:, :3], expected[:, :3])
    looped, _ = recurrent_rat(*broken, reset=reset, chunk_length=2)
    assert torch.equal(o.isfinite().all(3), looped.isfinite().all(3))
    ours = torch.autograd.grad(o[:, at:].sum(), broken)
    assert all(torch.equal(a[:, at:], b[:, at:]) for a, b in zip(ours, theirs, strict=True))


@needs_triton
@pytest.mark.parametrize(
    ("dtype", "bound", "bound_gradient"),
    [(torch.float32, 1e-5, 5e-5), (torch.float16, 2e-3, 4e-3)],
)
def test_the_kernels_in_low_precision_are_near_double_precision(
    dtype: torch.dtype, bound: float, bound_gradient: float
) -> None:
    xs = make(1, 20, 2, 1, 16, dtype=dtype)
    reset = some_resets(1, 20, 0.1)
    low = [x.requires_grad_() for x in xs]
    exact = [x.detach().double().requires_grad_() for x in xs]
    o, _ = chunk_rat(*low, reset=reset, chunk_length=4, impl="triton")
    expected, _ = chunk_rat(*exact, reset=reset, chunk_length=4)
    assert o.dtype == dtype
    assert (o - expected).abs().max() <= bound * expected.abs().max()
    ours = torch.autograd.grad(o.double().sum(), low)
    theirs = torch.autograd.grad(expected.sum(), exact)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() <= bound_gradient * b.abs().max()


def acts(
    xs: list[Tensor], reset: Tensor, state: RatState, inplace: bool = False, **options: Any
) -> tuple[Tensor, RatState]:
    """Return the outputs of steps and the last state, leaving `state` as it was."""
    state, outputs = copy_of(state), []
    for t in range(reset.shape[1]):
        now, before = [x[:, t] for x in xs], copy_of(state)
        tensors = [getattr(state, f.name) for f in fields(RatState)]
        o_t, new = step_rat(*now, state, reset=reset[:, t], inplace=inplace, **options)
        assert (new is state) == inplace
        if inplace:
            kept = [getattr(new, f.name) for f in fields(RatState)]
            assert all(x is y for x, y in zip(tensors, kept, strict=True))
        else:
            assert_same(state, before)
        outputs.append(o_t)
        state = new
    return torch.stack(outputs, 1), state


def copy_of(state: RatState) -> RatState:
    return RatState(*(getattr(state, f.name).clone() for f in fields(RatState)))


def assert_same(one: RatState, two: RatState, atol: float = 0) -> None:
    for f in fields(RatState):
        pair = getattr(one, f.name), getattr(two, f.name)
        torch.testing.assert_close(*pair, rtol=0, atol=atol, equal_nan=True)


@pytest.mark.parametrize("length", [1, 4])
def test_a_step_in_place_is_a_step(length: int) -> None:
    xs, reset = make(2, 9), some_resets(2, 9, 0.2, seed=4)
    state = some_state([6, 3], length=length)
    found, wanted = (
        acts(xs, reset, state, inplace, chunk_length=length) for inplace in (True, False)
    )
    assert torch.equal(found[0], wanted[0])
    assert_same(found[1], wanted[1])


@needs_triton
@pytest.mark.parametrize(
    ("pos", "width", "capacity", "length", "options"),
    [
        ([6, 17], 6, 3, 4, {}),
        ([3, 20], 5, 1, 1, {"rope_base": None}),
        ([40, 5], 20, 34, 1, {"scale": 0.3}),
        ([17, 47], 60, 2, 16, {}),
    ],
)
@pytest.mark.parametrize("inplace", [False, True])
def test_steps_of_triton_are_steps_of_the_reference(
    pos: list[int], width: int, capacity: int, length: int, options: dict[str, Any], inplace: bool
) -> None:
    state = some_state(pos, width, capacity, length, **options)
    xs, reset = make(2, 4, width=width), torch.zeros(2, 4, dtype=torch.bool)
    reset[0, 3] = True
    options |= dict(chunk_length=length)
    o, last = acts(xs, reset, state, inplace, impl="triton", **options)
    expected, end = acts(xs, reset, state, impl="reference", **options)
    torch.testing.assert_close(o, expected, rtol=0, atol=1e-12)
    assert_same(last, end, atol=1e-12)


@needs_triton
@pytest.mark.parametrize("length", [1, 4])
def test_a_broken_episode_ends_at_a_reset_in_a_step_of_triton(length: int) -> None:
    state, xs = some_state([7, 11], length=length), make(2, 3)
    for x in (state.k_end, state.v_end, state.k_run, state.v_run):
        x[0] = torch.nan
    reset = torch.zeros(2, 3, dtype=torch.bool)
    reset[0, 0] = True
    o, last = acts(xs, reset, state, chunk_length=length, impl="triton")
    expected, end = acts(xs, reset, state, chunk_length=length, impl="reference")
    assert o.isfinite().all()
    torch.testing.assert_close(o, expected, rtol=0, atol=1e-12)
    assert_same(last, end, atol=1e-12)


@needs_triton
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float16, 2e-3)])
def test_a_step_of_triton_rounds_as_the_reference_does(dtype: torch.dtype, bound: float) -> None:
    xs, reset = make(2, 12, 2, 1, 16, dtype=dtype), some_resets(2, 12, 0.1)
    state = empty_state(2, 2, 3, 16, like=xs[0])
    o, last = acts(xs, reset, state, chunk_length=2, impl="triton")
    low, end = acts(xs, reset, state, chunk_length=2, impl="reference")
    exact, _ = acts(
        [x.double() for x in xs],
        reset,
        empty_state(2, 2, 3, 16, like=xs[0].double()),
        chunk_length=2,
        impl="reference",
    )
    assert o.dtype == dtype
    assert (o - exact).abs().max() <= bound * exact.abs().max()
    # Numbers that lie between two of the type may go either way.
    assert (o != low).double().mean() < (1 if dtype == torch.float32 else 0.05)
    assert_same(last, end, atol=1e-5 if dtype == torch.float32 else bound)


@needs_triton
def test_a_step_of_triton_reads_views_and_refuses_what_it_cannot_do() -> None:
    xs, state = make(2, 1), some_state([6, 3])
    reset, views = torch.zeros(2, 1, dtype=torch.bool), [x.mT.contiguous().mT for x in xs]
    turned = RatState(
        *(getattr(state, f.name).mT.contiguous().mT for f in fields(RatState)[:4]), state.pos
    )
    o, last = acts(views, reset, state, chunk_length=L, impl="triton")
    expected, end = acts(xs, reset, state, chunk_length=L, impl="triton")
    assert torch.equal(o, expected)
    assert_same(last, end)
    now = [x[:, 0] for x in xs]
    assert_same(step_rat(*now, turned, chunk_length=L, impl="triton")[1], end)
    with pytest.raises(ValueError, match="state: it has to be contiguous"):
        step_rat(*now, turned, chunk_length=L, inplace=True, impl="triton")
    with pytest.raises(ValueError, match="impl: 'triton' gives no gradients of a step"):
        step_rat(*now[:3], now[3].requires_grad_(), state, impl="triton")


@pytest.mark.slow
def test_it_compiles_into_one_graph() -> None:
    inputs, reset = parameters(6), some_resets(2, 6, 0.3)
    compiled = torch.compile(window, fullgraph=True, backend="aot_eager")
    ours = gradients(compiled(inputs, reset, chunk_rat, some_state([6, 3], D, 2)), inputs)
    plain = gradients(window(inputs, reset, chunk_rat), inputs)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_bad_arguments_are_named() -> None:
    q, k, v, g = make()
    state = empty_state(B, H, C, D, like=q)
    cases: list[tuple[str, list[Tensor], dict[str, Any]]] = [
        (r"q: .*\[4, 29, 6\]", [q[:, :, 0], k, v, g], {}),
        (r"k: .*\[4, 28, 2, 6\]", [q, k[:, 1:], v, g], {}),
        (r"v: .*multiple of q's 2 groups", [q, k, v[:, :, 1:], g], {}),
        (r"g: float16", [q, k, v, g.half()], {}),
        (r"reset: ", [q, k, v, g], {"reset": torch.zeros(B, 3, dtype=torch.bool)}),
        (r"chunk_length: 0", [q, k, v, g], {"chunk_length": 0}),
        (r"rope_base: .*even width", [x[..., 1:] for x in (q, k, v, g)], {}),
        (r"capacity: 0", [q, k, v, g], {"capacity": 0}),
        (r"capacity: 5 given", [q, k, v, g], {"capacity": 5, "initial_state": state}),
        (r"state.v_run: ", [q, k, v, g], {"initial_state": replace(state, v_run=v)}),
        (r"impl: 'fast'", [q, k, v, g], {"impl": "fast"}),
    ]
    for message, xs, options in cases:
        with pytest.raises(ValueError, match=message):
            chunk_rat(*xs, **options)
