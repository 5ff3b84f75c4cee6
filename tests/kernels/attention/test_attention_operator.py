"""Laws of softmax attention: naive loop, step = chunk, windows, resets, broken steps, Triton."""

from importlib.util import find_spec
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from palaestra.kernels.attention import (
    AttentionState,
    chunk_attention,
    empty_state,
    recurrent_attention,
    step_attention,
)

B, T, H, D = 4, 17, 2, 3

needs_triton = pytest.mark.skipif(not find_spec("triton"), reason="triton is not installed")
IMPLS = ["reference", pytest.param("triton", marks=needs_triton)]


def make(
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    shape: tuple[int, int, int, int] = (B, T, H, D),
) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    qkv = [torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype) for _ in "qkv"]
    return qkv, torch.rand(shape[:2], generator=generator) < 0.2


def running(window: int, like: Tensor, seed: int = 1) -> AttentionState:
    """A state in the middle of episodes of different lengths; what is not in use is zero."""
    generator = torch.Generator().manual_seed(seed)
    rows, _, heads, width = like.shape
    pos = torch.arange(rows, dtype=torch.int32) * (window + 1) // 2
    used = (torch.arange(window) < pos.unsqueeze(1))[:, None, :, None]
    k, v = (
        torch.randn(rows, heads, window, width, dtype=torch.float64, generator=generator) * used
        for _ in "kv"
    )
    return AttentionState(k.to(like.dtype), v.to(like.dtype), pos)


def gradients(o: Tensor, inputs: list[Tensor], seed: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    do = torch.randn(o.shape, dtype=torch.float64, generator=generator).to(o.dtype)
    return list(torch.autograd.grad(o, inputs, do))


def naive(q: Tensor, k: Tensor, v: Tensor, reset: Tensor, window: int) -> Tensor:
    """Each query over the list of what its episode has seen."""
    o = torch.empty_like(q)
    for b in range(len(q)):
        first = 0
        for t in range(q.shape[1]):
            first = t if reset[b, t] else first
            seen = slice(max(first, t + 1 - window), t + 1)
            for h in range(q.shape[2]):
                weights = (k[b, seen, h] @ q[b, t, h] * q.shape[-1] ** -0.5).softmax(0)
                o[b, t, h] = weights @ v[b, seen, h]
    return o


def steps(qkv: list[Tensor], reset: Tensor, state: AttentionState) -> tuple[Tensor, AttentionState]:
    rows = []
    for t in range(reset.shape[1]):
        o, state = step_attention(*(x[:, t] for x in qkv), state, reset=reset[:, t])
        rows.append(o)
    return torch.stack(rows, 1), state


def assert_equal(one: AttentionState | None, two: AttentionState | None) -> None:
    assert one is not None
    assert two is not None
    assert torch.equal(one.k, two.k)
    assert torch.equal(one.v, two.v)
    assert torch.equal(one.pos, two.pos)


@pytest.mark.parametrize("window", [1, 4, 16, 17, 40])
def test_a_chunk_is_the_naive_loop(window: int) -> None:
    qkv, reset = make()
    o, _ = chunk_attention(*qkv, reset=reset, window=window)
    torch.testing.assert_close(o, naive(*qkv, reset, window), rtol=0, atol=1e-14)


def test_without_resets_it_is_torch_attention() -> None:
    qkv, _ = make()
    o, _ = chunk_attention(*qkv)
    q, k, v = (x.transpose(1, 2) for x in qkv)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(o, expected.transpose(1, 2), rtol=0, atol=1e-14)


@pytest.mark.parametrize("window", [1, 4, 16, 17, 40])
@pytest.mark.parametrize("cut", [1, 5, 16])
def test_windows_with_carried_state_and_single_steps_equal_the_whole(window: int, cut: int) -> None:
    qkv, reset = make()
    state = empty_state(B, H, window, D, like=qkv[0])
    whole, last = chunk_attention(*qkv, reset=reset, initial_state=state, output_final_state=True)
    head, middle = chunk_attention(
        *(x[:, :cut] for x in qkv),
        reset=reset[:, :cut],
        initial_state=state,
        output_final_state=True,
    )
    tail, end = chunk_attention(
        *(x[:, cut:] for x in qkv),
        reset=reset[:, cut:],
        initial_state=middle,
        output_final_state=True,
    )
    stepped, step_end = steps(qkv, reset, state)
    torch.testing.assert_close(torch.cat([head, tail], 1), whole, rtol=0, atol=1e-14)
    torch.testing.assert_close(stepped, whole, rtol=0, atol=1e-14)
    assert_equal(end, last)
    assert_equal(step_end, last)


def test_gradients_are_finite_differences_with_a_carried_state() -> None:
    generator = torch.Generator().manual_seed(0)
    qkv = [
        torch.randn(2, 5, 1, 3, dtype=torch.float64, generator=generator, requires_grad=True)
        for _ in range(3)
    ]
    cache = [
        torch.randn(2, 1, 4, 3, dtype=torch.float64, generator=generator, requires_grad=True)
        for _ in range(2)
    ]
    reset = torch.tensor([[0, 0, 0, 1, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
    pos = torch.tensor([6, 4], dtype=torch.int32)

    def read(q: Tensor, k: Tensor, v: Tensor, k_0: Tensor, v_0: Tensor) -> Tensor:
        return chunk_attention(q, k, v, reset=reset, initial_state=AttentionState(k_0, v_0, pos))[0]

    assert torch.autograd.gradcheck(read, (*qkv, *cache))


@pytest.mark.parametrize("impl", IMPLS)
def test_no_gradient_crosses_a_reset(impl: str) -> None:
    qkv, _ = make()
    qkv = [x.requires_grad_() for x in qkv]
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[:, 9] = True
    o, _ = chunk_attention(*qkv, reset=reset, impl=impl)
    for gradient in torch.autograd.grad(o[:, 9:].sum(), qkv):
        assert not gradient[:, :9].any()


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("which", [(0, 1, 2), (0,), (1,), (2,)])
@pytest.mark.parametrize("impl", IMPLS)
def test_a_broken_episode_does_not_reach_the_next_one(
    impl: str, which: tuple[int, ...], bad: float
) -> None:
    qkv, _ = make()
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[:, 9] = True
    clean = [x.clone().requires_grad_() for x in qkv]
    broken = [x.clone() for x in qkv]
    for i, x in enumerate(broken):
        if i in which:
            x[:, 3:9, 0] = bad
        x.requires_grad_()
    expected, state = chunk_attention(*clean, reset=reset, output_final_state=True, impl=impl)
    o, after = chunk_attention(*broken, reset=reset, output_final_state=True, impl=impl)
    assert torch.equal(o[:, 9:], expected[:, 9:])
    assert torch.equal(o[:, :3], expected[:, :3])
    assert o[:, 3:9, 0].isnan().all()
    assert torch.equal(o[:, :, 1], expected[:, :, 1])
    assert state is not None
    assert after is not None
    assert torch.equal(after.v, state.v)
    ours = torch.autograd.grad(o[:, 9:].sum(), broken, retain_graph=True)
    theirs = torch.autograd.grad(expected[:, 9:].sum(), clean)
    assert all(torch.equal(a[:, 9:], b[:, 9:]) for a, b in zip(ours, theirs, strict=True))
    whole = torch.autograd.grad(o.sum(), broken)
    assert all(dx.isfinite().all() for dx in whole)
    stepped, _ = steps([x.detach() for x in broken], reset, empty_state(B, H, T, D, like=qkv[0]))
    torch.testing.assert_close(stepped[:, 9:], expected[:, 9:], rtol=0, atol=1e-14)


@pytest.mark.parametrize("impl", IMPLS)
def test_a_reset_changes_no_other_row_by_one_bit(impl: str) -> None:
    qkv, reset = make(dtype=torch.float32)
    other = reset.clone()
    other[1] = ~other[1]
    one, two = (chunk_attention(*qkv, reset=r, impl=impl)[0] for r in (reset, other))
    assert torch.equal(one[[0, 2, 3]], two[[0, 2, 3]])
    assert not torch.equal(one[1], two[1])
    alone, _ = chunk_attention(*(x[2:3] for x in qkv), reset=reset[2:3], impl=impl)
    assert torch.equal(alone, one[2:3])


@pytest.mark.parametrize("impl", IMPLS)
def test_a_step_leaves_the_given_state_as_it_was_unless_told_to_write(impl: str) -> None:
    qkv, reset = make()
    state = running(4, qkv[0])
    before = AttentionState(state.k.clone(), state.v.clone(), state.pos.clone())
    first = [x[:, 0] for x in qkv]
    o, new = step_attention(*first, state, reset=reset[:, 0], impl=impl)
    assert_equal(state, before)
    o_written, written = step_attention(*first, state, reset=reset[:, 0], inplace=True, impl=impl)
    assert written is state
    assert torch.equal(o_written, o)
    assert_equal(state, new)


def test_a_reset_at_the_wrong_step_is_seen() -> None:
    qkv, reset = make()
    expected = naive(*qkv, reset, T)
    for shift in (-1, 1):
        o, _ = chunk_attention(*qkv, reset=reset.roll(shift, 1))
        assert (o - expected).abs().max() > 0.1


@pytest.mark.parametrize("steps_", [1, 15, 16, 17, 33])
@pytest.mark.parametrize("window", [1, 7, 16, 40])
def test_the_size_of_a_chunk_changes_nothing(steps_: int, window: int) -> None:
    qkv, reset = make(shape=(2, steps_, 1, 5))
    state = running(window, qkv[0])
    expected, end = recurrent_attention(
        *qkv, reset=reset, initial_state=state, output_final_state=True
    )
    for size in (16, 32, 64):
        o, last = chunk_attention(
            *qkv, reset=reset, initial_state=state, output_final_state=True, chunk_size=size
        )
        torch.testing.assert_close(o, expected, rtol=0, atol=1e-14)
        assert_equal(last, end)


RESETS = {
    "none": [],
    "first": [0],
    "last": [39],
    "every": list(range(40)),
    "adjacent": [7, 8, 9],
    "on the edge of a chunk": [16, 32],
    "inside a chunk": [5, 21],
}


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("where", RESETS)
def test_mask_packed_episodes_and_separate_episodes_agree(where: str, impl: str) -> None:
    (q, k, v), _ = make(shape=(1, 40, H, D))
    begins = sorted({0, *RESETS[where]})
    reset = torch.zeros(1, 40, dtype=torch.bool)
    reset[:, begins] = True
    packed = torch.tensor([*begins, begins[-1], 40, 40])  # with episodes of no step
    inputs = [x.requires_grad_() for x in (q, k, v)]
    parts = [
        chunk_attention(*(x[:, i:j] for x in inputs), window=12, output_final_state=True, impl=impl)
        for i, j in pairwise([*begins, 40])
    ]
    expected = torch.cat([o for o, _ in parts], 1)
    end, theirs = parts[-1][1], gradients(expected, inputs)
    for how in ({"reset": reset}, {"cu_seqlens": packed}):
        o, last = chunk_attention(*inputs, window=12, output_final_state=True, impl=impl, **how)
        torch.testing.assert_close(o, expected, rtol=0, atol=1e-14)
        assert_equal(last, end)
        torch.testing.assert_close(gradients(o, inputs), theirs, rtol=0, atol=1e-13)


@pytest.mark.parametrize("impl", IMPLS)
def test_the_carried_state_learns_from_the_steps_before_the_first_reset(impl: str) -> None:
    qkv, _ = make(shape=(2, 9, H, D))
    reset = torch.zeros(2, 9, dtype=torch.bool)
    reset[0, 0] = reset[1, 4] = True
    state = running(6, qkv[0])
    state.pos = torch.tensor([3, 8], dtype=torch.int32)
    cache = [x.requires_grad_() for x in (state.k, state.v)]
    o, _ = chunk_attention(*qkv, reset=reset, initial_state=state, impl=impl)
    for dx in gradients(o, cache):
        assert not dx[0].any()
        assert dx[1].any(1).any(1).sum() > 0
    for dx in torch.autograd.grad(
        chunk_attention(*qkv, reset=reset, initial_state=state, impl=impl)[0][1, 4:].sum(), cache
    ):
        assert not dx.any()


@pytest.mark.parametrize("impl", IMPLS)
def test_heads_beside_each_other_in_one_tensor_are_read_right(impl: str) -> None:
    qkv, reset = make()
    apart = torch.stack(qkv, 2).unbind(2)
    assert not apart[0].is_contiguous()
    one, two = (chunk_attention(*x, reset=reset, impl=impl)[0] for x in (qkv, apart))
    assert torch.equal(one, two)


def test_a_long_window_keeps_nothing_that_grows_with_its_square() -> None:
    def kept(length: int) -> int:
        (q, k, v), reset = make(dtype=torch.float32, shape=(1, length, 1, 16))
        tensors = {}

        def note(x: Tensor) -> Tensor:
            tensors[x.untyped_storage().data_ptr()] = x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            inputs = [x.requires_grad_() for x in (q, k, v)]
            o, _ = chunk_attention(*inputs, reset=reset, chunk_size=16)
            gradients(o, inputs)
        return sum(tensors.values())

    assert kept(1024) <= 4.5 * kept(256)


def test_blocks_made_again_in_the_backward_are_the_same() -> None:
    qkv, reset = make(shape=(2, 300, 1, 4))
    inputs = [x.requires_grad_() for x in qkv]
    few, many = (chunk_attention(*inputs, reset=reset, chunk_size=size)[0] for size in (256, 16))
    torch.testing.assert_close(few, many, rtol=0, atol=1e-14)
    torch.testing.assert_close(gradients(few, inputs), gradients(many, inputs), rtol=0, atol=1e-13)


def test_it_compiles_without_a_break() -> None:
    torch._dynamo.reset()
    qkv, reset = make()
    state = running(5, qkv[0])
    inputs = [x.requires_grad_() for x in qkv]

    def read(q: Tensor, k: Tensor, v: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
        o, last = chunk_attention(
            q, k, v, reset=reset, initial_state=state, output_final_state=True, impl="reference"
        )
        assert last is not None
        return o, last.k

    compiled = torch.compile(read, fullgraph=True, backend="aot_eager")
    for mask in (reset, reset.roll(1, 1)):
        (o, last), (expected, end) = compiled(*inputs, mask), read(*inputs, mask)
        torch.testing.assert_close((o, last), (expected, end), rtol=0, atol=1e-14)
        torch.testing.assert_close(
            gradients(o, inputs), gradients(expected, inputs), rtol=0, atol=1e-13
        )


@pytest.mark.parametrize("impl", IMPLS)
def test_great_scores_and_equal_keys_stay_finite(impl: str) -> None:
    (q, k, v), reset = make(dtype=torch.float32)
    for inputs in ([1e4 * q, 1e4 * k, v], [q, torch.ones_like(k), v], [0 * q, k, 1e30 * v]):
        inputs = [x.detach().requires_grad_() for x in inputs]
        o, _ = chunk_attention(*inputs, reset=reset, impl=impl)
        assert o.isfinite().all()
        assert all(dx.isfinite().all() for dx in gradients(o, inputs))


def test_a_ring_turned_many_times_is_the_last_steps() -> None:
    (q, k, v), _ = make(shape=(1, 1000, 1, 2))
    o, last = steps(
        [q, k, v], torch.zeros(1, 1000, dtype=torch.bool), empty_state(1, 1, 7, 2, like=q)
    )
    torch.testing.assert_close(
        o[:, -1:], naive(*(x[:, -7:] for x in (q, k, v)), torch.zeros(1, 7), 7)[:, -1:]
    )
    assert last.pos == 1000
    assert torch.equal(last.k[0, 0].sort(0).values, k[0, -7:, 0].sort(0).values)


@needs_triton
@pytest.mark.parametrize(
    ("shape", "window"),
    [((2, 1, 1, 8), 4), ((2, 33, 2, 20), 1), ((1, 70, 1, 60), 24), ((2, 31, 1, 100), 100)],
)
def test_triton_is_the_reference(shape: tuple[int, int, int, int], window: int) -> None:
    qkv, reset = make(shape=shape)
    reset[-1] = False
    state = running(window, qkv[0])
    inputs = [x.requires_grad_() for x in (*qkv, state.k, state.v)]
    found = []
    for impl in ("reference", "triton"):
        o, last = chunk_attention(
            *inputs[:3], reset=reset, initial_state=state, output_final_state=True, impl=impl
        )
        assert last is not None
        found.append((o, *gradients(o, inputs), last.k, last.v, last.pos))
    torch.testing.assert_close(*found, rtol=0, atol=1e-13)


@needs_triton
def test_triton_in_single_precision_is_the_truth_but_for_rounding() -> None:
    qkv, reset = make(dtype=torch.float32, shape=(2, 50, 2, 32))
    found = []
    for dtype, impl in ((torch.float64, "reference"), (torch.float32, "triton")):
        inputs = [x.to(dtype).requires_grad_() for x in qkv]
        o, _ = chunk_attention(*inputs, reset=reset, window=20, impl=impl)
        found.append((o, *gradients(o, inputs)))
    for i, (truth, ours) in enumerate(zip(*found, strict=True)):
        assert (ours - truth).abs().max() <= (5e-5 if i else 1e-5) * truth.abs().max()


@pytest.mark.parametrize("impl", IMPLS)
def test_in_half_precision_the_error_is_at_most_twice_that_of_the_formula(impl: str) -> None:
    qkv, reset = make(dtype=torch.float16, shape=(2, 50, 2, 32))
    segment = reset.cumsum(1)
    mask = (segment.unsqueeze(2) == segment.unsqueeze(1)).tril().unsqueeze(1)

    def formula(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        scores = (q * 32**-0.5) @ k.transpose(2, 3)
        return (scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v).transpose(1, 2)

    def read(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return chunk_attention(q, k, v, reset=reset, impl=impl)[0]

    found = []
    for dtype, form in ((torch.float64, formula), (torch.half, formula), (torch.half, read)):
        inputs = [x.to(dtype).requires_grad_() for x in qkv]
        o = form(*inputs)
        found.append((o, *gradients(o, inputs)))
    for truth, plain, ours in zip(*found, strict=True):
        band = torch.finfo(torch.half).eps * truth.abs().max()
        assert (ours - truth).abs().max() <= 2 * (plain - truth).abs().max() + band


@needs_triton
@pytest.mark.slow
def test_gradients_of_triton_are_finite_differences() -> None:
    qkv, reset = make(shape=(2, 5, 1, 3))
    inputs = [x.requires_grad_() for x in qkv]

    def read(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return chunk_attention(q, k, v, reset=reset, window=3, impl="triton")[0]

    # Along one random direction: the interpreter is slow.
    assert torch.autograd.gradcheck(read, inputs, fast_mode=True)


@needs_triton
def test_two_runs_of_triton_are_equal_to_the_bit() -> None:
    qkv, reset = make(dtype=torch.float32)
    inputs = [x.requires_grad_() for x in qkv]
    one, two = (chunk_attention(*inputs, reset=reset, impl="triton")[0] for _ in range(2))
    assert torch.equal(one, two)
    assert all(map(torch.equal, gradients(one, inputs), gradients(two, inputs)))


@needs_triton
@pytest.mark.parametrize("window", [1, 4, 40])
def test_steps_of_triton_are_steps_of_the_reference(window: int) -> None:
    qkv, reset = make(shape=(B, 9, H, 20))
    state = ours = running(window, qkv[0])
    ours = AttentionState(ours.k.clone(), ours.v.clone(), ours.pos.clone())
    for t in range(9):
        now = [x[:, t] for x in qkv]
        o, state = step_attention(*now, state, reset=reset[:, t], impl="reference")
        o_t, ours = step_attention(*now, ours, reset=reset[:, t], inplace=True, impl="triton")
        torch.testing.assert_close(o_t, o, rtol=0, atol=1e-14)
        assert_equal(ours, state)
    with pytest.raises(ValueError, match="impl: 'triton' gives no gradients of a step"):
        step_attention(now[0].requires_grad_(), *now[1:], ours, impl="triton")


def test_bad_arguments_are_named() -> None:
    (q, k, v), reset = make()
    with pytest.raises(ValueError, match=r"impl: 'cuda' is not accepted: 'auto', 'reference'"):
        chunk_attention(q, k, v, impl="cuda")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"k: float64 \[4, 16, 2, 3\] is not float64"):
        chunk_attention(q, k[:, 1:], v)
    with pytest.raises(ValueError, match=r"reset: torch.bool \[4, 16\] is not bool or uint8"):
        chunk_attention(q, k, v, reset=reset[:, 1:])
    with pytest.raises(ValueError, match=r"state\.k: float32 \[4, 2, 4, 3\] is not float64"):
        chunk_attention(q, k, v, initial_state=empty_state(B, H, 4, D))
    with pytest.raises(ValueError, match=r"q: float64 \[4, 2, 3\] is not .* \[B, T, H, D\]"):
        recurrent_attention(q[:, 0], k, v)
    with pytest.raises(ValueError, match="window: 0 is not 1 or more"):
        chunk_attention(q, k, v, window=0)
    with pytest.raises(ValueError, match="chunk_size: 20 is not a power of two"):
        chunk_attention(q, k, v, chunk_size=20)
    with pytest.raises(ValueError, match="reset, cu_seqlens: one of them"):
        chunk_attention(q, k, v, reset=reset, cu_seqlens=torch.tensor([0, T]))
    state = empty_state(B, H, 4, D, like=q)
    with pytest.raises(ValueError, match="window: 5 given, but the state's is 4"):
        chunk_attention(q, k, v, initial_state=state, window=5)
