"""Every policy under autocast: it learns, steps as it learns, and its numbers keep their types."""

from typing import Any

import pytest
import torch
from gymnasium import spaces

import palaestra.policies as policies
from palaestra.registry import registry

NAMES = [name for name, e in registry.entries("policy").items() if e.origin == "palaestra"]
MIXERS = ["attention", "rat", "mesa", "gla", "deltanet", "gated-deltanet", "gru", "lstm"]
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in NAMES if name != "mixture"),
    ("mixture", {"layers": MIXERS}),
    ("gla", {"convolution": True}),
]
B, T = 4, 20
ROUNDING = 16 * torch.finfo(torch.bfloat16).eps


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_policy_learns_and_steps_under_autocast(name: str, options: dict[str, Any]) -> None:
    policy = policies.make(name, spaces.Box(-1, 1, (3,)), spaces.Discrete(4), **options)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(B, T, 3, generator=generator)
    reset = torch.rand(B, T, generator=generator) < 0.15
    exact, _ = policy(x, policy.initial_state(B), reset)
    with torch.autocast("cpu", torch.bfloat16):
        start = policy.initial_state(B)
        output, end = policy(x, start, reset)
        values, state = [], start
        for t in range(T):
            stepped, state = policy.step(x[:, t], state, reset[:, t])
            values.append(stepped.value)
        loss = output.distribution.log_prob(torch.zeros(B, T)).sum() + output.value.square().sum()
    loss.backward()
    assert output.value.dtype == torch.float32
    assert output.distribution.entropy().dtype == torch.float32
    types = {path: s.dtype for path, s in start.tensors().items()}
    for after in (end, state):
        assert {path: s.dtype for path, s in after.tensors().items()} == types
    torch.testing.assert_close(output.value, exact.value, rtol=0, atol=ROUNDING)
    torch.testing.assert_close(torch.stack(values, 1), output.value, rtol=0, atol=ROUNDING)
    for path, parameter in policy.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.dtype == torch.float32, path
        assert parameter.grad.isfinite().all(), path
