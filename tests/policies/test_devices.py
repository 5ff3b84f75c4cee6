"""Policies where their weights are: nothing in them assumes the CPU.

The meta device computes shapes without numbers and refuses an operation on tensors of two devices,
so that a tensor that was made on the CPU by mistake shows here without a GPU.
"""

from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor

import palaestra.policies as policies
from palaestra.policies.base import Policy
from palaestra.registry import registry

NAMES = [name for name, e in registry.entries("policy").items() if e.origin == "palaestra"]
MIXERS = ["attention", "rat", "mesa", "gla", "deltanet", "gated-deltanet", "gru", "lstm"]
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in NAMES if name != "mixture"),
    ("mixture", {"layers": MIXERS}),
    ("gla", {"convolution": True}),
    ("gla", {"decay": "lightning"}),
    ("gru", {"separate_critic": True}),
]
OBSERVATIONS = spaces.Dict(
    place=spaces.Discrete(3), speed=spaces.Box(-1, 1, (2,)), action_mask=spaces.MultiBinary(4)
)
B, T = 4, 20


def window(device: str) -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    observation = {
        "place": torch.randint(3, (B, T), generator=generator),
        "speed": torch.randn(B, T, 2, generator=generator),
        "action_mask": torch.ones(B, T, 4, dtype=torch.int8),
    }
    reset = torch.rand(B, T, generator=generator) < 0.15
    return {key: x.to(device) for key, x in observation.items()}, reset.to(device)


def read(policy: Policy, device: str) -> tuple[Tensor, Tensor]:
    """Values of a window and of its steps, after a backward pass."""
    observation, reset = window(device)
    start = policy.initial_state(B)
    output, end = policy(observation, start, reset)
    action = torch.zeros(B, T, device=device)
    (output.value.sum() + output.distribution.log_prob(action).sum()).backward()
    values, state = [], start
    for t in range(T):
        step = {key: x[:, t] for key, x in observation.items()}
        stepped, state = policy.step(step, state, reset[:, t])
        values.append(stepped.value)
    for carried in (start, end, state):
        assert all(s.device.type == device for s in carried.tensors().values())
    for path, parameter in policy.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.device.type == device, path
    return output.value, torch.stack(values, 1)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_moved_policy_makes_no_tensor_elsewhere(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The meta device knows neither autocast nor numbers: who asks for some gets ones.
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    monkeypatch.setattr(
        torch.Tensor, "tolist", lambda x: torch.ones(x.shape).int().numpy().tolist()
    )
    policy = policies.make(name, OBSERVATIONS, spaces.Discrete(4), **options).to("meta")
    whole, stepped = read(policy, "meta")
    assert whole.is_meta
    assert stepped.is_meta


def test_a_tensor_made_on_the_cpu_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    policy = policies.make("sliding-attention", OBSERVATIONS, spaces.Discrete(4))
    start = policy.initial_state(B)
    observation, reset = window("meta")
    with pytest.raises(RuntimeError, match="on device cpu"):
        policy.to("meta")(observation, start, reset)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_gpu_gives_what_the_cpu_gives(name: str, options: dict[str, Any]) -> None:
    policy = policies.make(name, OBSERVATIONS, spaces.Discrete(4), **options)
    exact, _ = read(policy, "cpu")
    policy.zero_grad()
    whole, stepped = read(policy.to("cuda"), "cuda")
    # Products of a GPU may have ten bits.
    torch.testing.assert_close(whole.cpu(), exact, rtol=0, atol=2e-2)
    torch.testing.assert_close(stepped.cpu(), exact, rtol=0, atol=2e-2)
