"""Each mixer against its formula, token by token for one head of one episode."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, silu, softplus

from palaestra.kernels.rotary import rotate
from palaestra.policies.base import Backbone
from palaestra.policies.delta import DeltaMixer, DeltaOptions
from palaestra.policies.gla import GLAMixer, GLAOptions
from palaestra.policies.mesa import LAMB_FLOOR, MesaMixer, MesaOptions
from palaestra.policies.rat import RATMixer, RATOptions
from palaestra.policies.sliding_attention import AttentionMixer, AttentionOptions

W, H, D, T = 16, 4, 4, 19


def read(mixer: Backbone) -> tuple[Tensor, Tensor]:
    """A random episode `[T, W]` and what the mixer makes of it."""
    torch.manual_seed(1)
    x = torch.randn(1, T, W, dtype=torch.float64)
    y, _ = mixer(x, mixer.initial_state(1), torch.zeros(1, T, dtype=torch.bool))
    return x[0], y[0]


def heads(x: Tensor) -> Tensor:
    """`[T, W]` -> `[H, T, D]`."""
    return x.unflatten(1, (-1, D)).transpose(0, 1)


def rms(x: Tensor) -> Tensor:
    return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt()


def unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    return torch.stack([sum(weight[j] * x[t - j] for j in range(min(4, t + 1))) for t in range(T)])


def assert_heads(y: Tensor, head: Callable[[int], Tensor]) -> None:
    for h in range(H):
        torch.testing.assert_close(heads(y)[h], head(h), rtol=0, atol=1e-10)


def test_attention_is_softmax_over_the_window() -> None:
    torch.manual_seed(0)
    mixer = AttentionMixer(W, H, AttentionOptions(window=5)).double()
    x, y = read(mixer)
    q, k, v = (heads(part) for part in mixer.qkv(x).chunk(3, 1))
    t = torch.arange(T)
    q, k = (rotate(part.transpose(0, 1), t.unsqueeze(1)).transpose(0, 1) for part in (q, k))
    lag = t[:, None] - t
    scores = (q @ k.mT / 2).masked_fill((lag < 0) | (lag >= 5), -torch.inf)
    assert_heads(y, lambda h: scores[h].softmax(1) @ v[h])


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_rat_is_averages_inside_a_chunk_and_softmax_over_chunks(chunk: int) -> None:
    torch.manual_seed(0)
    mixer = RATMixer(W, H, RATOptions(chunk=chunk, context=100)).double()
    x, y = read(mixer)
    z, v, g, q, k = mixer.proj(x).split([W, W, W, 2 * D, 2 * D], 1)
    z, v, g = heads(z.sigmoid()), heads(v), heads((g + mixer.gate_bias).sigmoid())
    q, k = (heads(part) for part in (q, k))

    def head(h: int) -> Tensor:
        k_t, v_t, ends, rows = torch.zeros(D).double(), torch.zeros(D).double(), [], []
        for t in range(T):
            a = g[h, t] * (t % chunk != 0)
            k_t = a * k_t + (1 - g[h, t]) * k[h % 2, t]
            v_t = a * v_t + (1 - g[h, t]) * v[h, t]
            turned, query = (
                rotate(part.view(1, 1, D), torch.tensor([t // chunk])).view(D)
                for part in (k_t, q[h % 2, t])
            )
            seen = [*ends, (turned, v_t)]
            weights = torch.stack([query @ key / 2 for key, _ in seen]).softmax(0)
            rows.append(z[h, t] * (weights @ torch.stack([value for _, value in seen])))
            if t % chunk == chunk - 1:
                ends.append((turned, v_t))
        return torch.stack(rows)

    assert_heads(y, head)


@pytest.mark.parametrize("convolution", [False, True])
@pytest.mark.parametrize("decay", ["channel", "head", "lightning", "none"])
def test_gla_is_a_decayed_sum_of_outer_products(decay: str, convolution: bool) -> None:
    torch.manual_seed(0)
    options = GLAOptions(decay=decay, gate_temperature=2, convolution=convolution)
    mixer = GLAMixer(W, H, options).double()
    x, y = read(mixer)
    qkv, z = mixer.qkvz(x).split([3 * W, W], 1)
    if mixer.conv is not None:
        qkv = silu(convolve(qkv, mixer.conv.weight))
    q, k, v, z = (heads(part) for part in (*qkv.chunk(3, 1), z))
    if decay == "none":
        a = torch.ones(H, T, D)
    elif decay == "lightning":
        a = torch.tensor([-(2.0**-2), -(2.0**-4), -(2.0**-6), -(2.0**-8)]).double().exp()
        a = a[:, None, None].expand(H, T, D)
    else:
        assert mixer.gate is not None
        torch.nn.init.normal_(mixer.gate.up.bias)
        y = read(mixer)[1]
        g = x @ mixer.gate.down.weight.t() @ mixer.gate.up.weight.t() + mixer.gate.up.bias
        a = (logsigmoid(g) / 2).exp()
        a = heads(a) if decay == "channel" else a.t()[:, :, None].expand(H, T, D)

    def head(h: int) -> Tensor:
        S, rows = torch.zeros(D, D).double(), []
        for t in range(T):
            S = a[h, t][:, None] * S + torch.outer(k[h, t], v[h, t])
            rows.append(rms(S.t() @ q[h, t] / 2) * silu(z[h, t]))
        return torch.stack(rows)

    assert_heads(y, head)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("negative", [False, True])
def test_delta_corrects_what_a_key_recalls(gated: bool, negative: bool) -> None:
    torch.manual_seed(0)
    options = DeltaOptions(negative_eigenvalues=negative)
    mixer = DeltaMixer(W, H, options, gated=gated).double()
    x, y = read(mixer)
    q, k, v = (heads(silu(part)) for part in convolve(mixer.qkv(x), mixer.conv.weight).chunk(3, 1))
    q, k = unit(q), unit(k)
    beta = (1 + negative) * mixer.beta(x).sigmoid()
    g = torch.zeros(T, H).double()
    if mixer.decay is not None:
        gate = mixer.decay
        g = -gate.A_log.exp() * softplus(gate.linear(x) + gate.dt_bias)

    def head(h: int) -> Tensor:
        S, rows = torch.zeros(D, D).double(), []
        for t in range(T):
            S = g[t, h].exp() * S
            S = S + beta[t, h] * torch.outer(k[h, t], v[h, t] - S.t() @ k[h, t])
            rows.append(rms(S.t() @ q[h, t] / 2))
        return torch.stack(rows)

    gate = 1 if mixer.gate is None else heads(silu(mixer.gate(x)))
    assert_heads(y, lambda h: head(h) * (gate if isinstance(gate, int) else gate[h]))


def test_mesa_is_the_ridge_regression_of_the_past() -> None:
    torch.manual_seed(0)
    mixer = MesaMixer(W, H, MesaOptions()).double()
    torch.nn.init.normal_(mixer.lamb)
    x, y = read(mixer)
    qk, v = mixer.qkv(x).split([2 * W, W], 1)
    q, k = (unit(heads(silu(part))) for part in convolve(qk, mixer.conv.weight).chunk(2, 1))
    beta, gamma = (mixer.gates(x) + mixer.gate_bias).sigmoid().chunk(2, 1)
    ridge = LAMB_FLOOR + softplus(mixer.lamb)

    def head(h: int) -> Tensor:
        rows = []
        for t in range(T):
            past = torch.arange(t + 1)
            left = gamma[:, h].log().cumsum(0)
            weight = (beta[: t + 1, h] * (left[t] - left[past]).exp())[:, None]
            K, V = k[h, : t + 1], heads(v)[h, : t + 1]
            x_t = torch.linalg.solve(K.t() @ (weight * K) + ridge[h].diag(), q[h, t])
            rows.append(rms((weight * V).t() @ (K @ x_t)))
        return torch.stack(rows)

    assert_heads(y, head)


def test_gates_start_as_documented() -> None:
    torch.manual_seed(0)
    mesa = MesaMixer(64, 4, MesaOptions())
    torch.testing.assert_close(LAMB_FLOOR + softplus(mesa.lamb), torch.ones(4, 16))
    delta = DeltaMixer(256, 256, DeltaOptions(), gated=True)
    assert delta.decay is not None
    A, dt = delta.decay.A_log.exp(), softplus(delta.decay.dt_bias)
    assert A.max() <= 1
    assert A.mean().item() == pytest.approx(0.5, abs=0.06)
    assert dt.min() >= 1e-3 * 0.99
    assert dt.max() <= 0.1 * 1.01
    assert dt.log().mean().item() == pytest.approx(-4.6, abs=0.25)
    rat = RATMixer(64, 4, RATOptions(chunk=16))
    assert rat.gate_bias.exp().min() >= 1
    assert rat.gate_bias.exp().max() <= 15
