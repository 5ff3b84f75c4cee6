"""Laws of softmax attention: the naive loop, step = chunk, windows, resets, broken steps."""

import pytest
import torch
from torch import Tensor

from palaestra.kernels.attention import (
    AttentionState,
    chunk_attention,
    empty_state,
    step_attention,
)

B, T, H, D = 4, 17, 2, 3


def make(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    qkv = [torch.randn(B, T, H, D, dtype=dtype, generator=generator) for _ in range(3)]
    return qkv, torch.rand(B, T, generator=generator) < 0.2


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
    assert last is not None
    assert end is not None
    for other in (end, step_end):
        assert torch.equal(other.k, last.k)
        assert torch.equal(other.v, last.v)
        assert torch.equal(other.pos, last.pos)


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


def test_no_gradient_crosses_a_reset() -> None:
    qkv, _ = make()
    qkv = [x.requires_grad_() for x in qkv]
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[:, 9] = True
    o, _ = chunk_attention(*qkv, reset=reset)
    for gradient in torch.autograd.grad(o[:, 9:].sum(), qkv):
        assert not gradient[:, :9].any()


def test_a_broken_episode_does_not_reach_the_next_one() -> None:
    qkv, _ = make()
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[:, 9] = True
    clean = [x.clone().requires_grad_() for x in qkv]
    broken = [x.clone() for x in qkv]
    for x in broken:
        x[:, 3:9] = torch.nan
        x.requires_grad_()
    expected, state = chunk_attention(*clean, reset=reset, output_final_state=True)
    o, after = chunk_attention(*broken, reset=reset, output_final_state=True)
    assert torch.equal(o[:, 9:], expected[:, 9:])
    assert torch.equal(o[:, :3], expected[:, :3])
    assert o[:, 3:9].isnan().all()
    assert state is not None
    assert after is not None
    assert torch.equal(after.v, state.v)
    ours = torch.autograd.grad(o[:, 9:].sum(), broken)
    theirs = torch.autograd.grad(expected[:, 9:].sum(), clean)
    assert all(torch.equal(a[:, 9:], b[:, 9:]) for a, b in zip(ours, theirs, strict=True))
    stepped, _ = steps([x.detach() for x in broken], reset, empty_state(B, H, T, D, like=qkv[0]))
    torch.testing.assert_close(stepped[:, 9:], expected[:, 9:], rtol=0, atol=1e-14)


def test_a_reset_changes_no_other_row_by_one_bit() -> None:
    qkv, reset = make(dtype=torch.float32)
    other = reset.clone()
    other[1] = ~other[1]
    one, two = (chunk_attention(*qkv, reset=r)[0] for r in (reset, other))
    assert torch.equal(one[[0, 2, 3]], two[[0, 2, 3]])
    assert not torch.equal(one[1], two[1])


def test_a_step_leaves_the_given_state_as_it_was() -> None:
    qkv, _ = make()
    state = empty_state(B, H, 4, D, like=qkv[0])
    step_attention(*(x[:, 0] for x in qkv), state)
    assert not state.k.any()
    assert not state.pos.any()


def test_bad_arguments_are_named() -> None:
    (q, k, v), reset = make()
    with pytest.raises(ValueError, match=r"impl: 'triton' is not accepted: 'auto' or 'reference'"):
        chunk_attention(q, k, v, impl="triton")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"k: .*\[4, 16, 2, 3\] differs from q"):
        chunk_attention(q, k[:, 1:], v)
    with pytest.raises(ValueError, match=r"reset: torch.bool \[4, 16\] is not bool \[4, 17\]"):
        chunk_attention(q, k, v, reset=reset[:, 1:])
    with pytest.raises(ValueError, match=r"state: keys torch\.float32"):
        chunk_attention(q, k, v, initial_state=empty_state(B, H, 4, D))
    state = empty_state(B, H, 4, D, like=q)
    with pytest.raises(ValueError, match="window: 5 given, but the state's is 4"):
        chunk_attention(q, k, v, initial_state=state, window=5)
