"""Torso: the encoder and the backbone of a policy, without its heads."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

import palaestra.policies as policies
from palaestra.errors import UserError
from palaestra.options import Options
from palaestra.policies.base import PolicySpec
from palaestra.policies.sequence import SequencePolicy
from palaestra.policies.torso import Torso
from palaestra.registry import Entry, registry

NAMES = [name for name, e in registry.entries("policy").items() if e.origin == "palaestra"]
OBSERVATIONS = spaces.Dict(
    place=spaces.Discrete(3), speed=spaces.Box(-1, 1, (2,)), action_mask=spaces.MultiBinary(4)
)
ACTIONS = spaces.Discrete(4)
B, T = 4, 9


def window() -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    observation = {
        "place": torch.randint(3, (B, T), generator=generator),
        "speed": torch.randn(B, T, 2, generator=generator),
        "action_mask": torch.ones(B, T, 4, dtype=torch.int8),
    }
    return observation, torch.rand(B, T, generator=generator) < 0.2


def build(name: str, **options: Any) -> SequencePolicy:
    policy = policies.make(name, OBSERVATIONS, ACTIONS, seed=5, **options)
    assert isinstance(policy, SequencePolicy)
    return policy


@pytest.mark.parametrize("name", NAMES)
def test_a_torso_has_the_weights_and_the_features_of_its_policy(name: str) -> None:
    torso, policy = PolicySpec(name).build_torso(OBSERVATIONS, seed=5), build(name)
    assert torso.out_features == policy.backbone.out_features
    assert torso.has_memory == policy.has_memory
    ours, theirs = torso.state_dict(), policy.state_dict()
    assert ours
    assert all(torch.equal(x, theirs[path]) for path, x in ours.items())
    observation, reset = window()
    features, state = torso(observation, torso.initial_state(B), reset)
    assert features.shape == (B, T, torso.out_features)
    output, _ = policy(observation, policy.initial_state(B), reset)
    if not policy.config.separate_critic:
        torch.testing.assert_close(policy.value_head(features), output.value, rtol=0, atol=0)
    assert torch.equal(
        policy.action_head(features).log_probs,  # type: ignore[attr-defined]
        output.distribution.log_probs,  # type: ignore[attr-defined]
    )
    stepped, carried = [], torso.initial_state(B)
    for t in range(T):
        y, carried = torso.step({k: x[:, t] for k, x in observation.items()}, carried, reset[:, t])
        stepped.append(y)
    torch.testing.assert_close(torch.stack(stepped, 1), features, rtol=0, atol=1e-4)
    assert carried.tensors().keys() == state.tensors().keys()


def test_a_q_network_is_a_torso_and_heads() -> None:
    class QNetwork(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.torso = PolicySpec("gru", {"hidden_size": 8}).build_torso(OBSERVATIONS)
            self.head = torch.nn.Linear(self.torso.out_features, 4)

    network = QNetwork()
    torso = [name for name, _ in network.named_parameters() if name.startswith("torso.")]
    assert torso == [f"torso.backbone.layers.0.{w}" for w in ("w_ih", "w_hh", "b_ih", "b_hh")]
    observation, reset = window()
    y, _ = network.torso(observation, network.torso.initial_state(B), reset)
    network.head(y).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("separate", [False, True])
def test_copies_and_conversions_of_a_policy_reach_its_torso(separate: bool) -> None:
    policy = build("gru", separate_critic=separate)
    for other in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        assert other.torso.backbone is other.backbone
        assert other.torso.encoder is other.encoder
        assert other.torso.backbone is not policy.backbone
    policy.double()
    observation, reset = window()
    output, _ = policy(observation, policy.initial_state(B), reset)
    assert output.value.dtype == torch.float64
    assert policy.torso.encode(observation).dtype == torch.float64


def test_a_critic_without_encoder_weights_shares_the_encoder() -> None:
    policy = build("gru", separate_critic=True)
    assert policy.critic_encoder is None
    image = spaces.Box(0, 255, (1, 36, 36), np.uint8)
    with_weights = policies.make("gru", image, ACTIONS, separate_critic=True)
    assert isinstance(with_weights, SequencePolicy)
    assert with_weights.critic_encoder is not None
    assert with_weights.critic_encoder is not with_weights.encoder


def test_weights_of_a_torso_depend_on_the_seed_alone() -> None:
    spec = PolicySpec("lstm")
    before = torch.get_rng_state()
    one, two, other = (spec.build_torso(OBSERVATIONS, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[path], two[path]) for path in one)
    assert not torch.equal(one["backbone.layers.0.w_ih"], other["backbone.layers.0.w_ih"])


def test_a_policy_without_a_torso_and_a_critic_of_a_torso_are_refused() -> None:
    class Bare(policies.Policy):  # type: ignore[misc,name-defined]
        Config = Options

    registry.add(Entry("policy", "bare", Bare, "a test"))
    try:
        with pytest.raises(UserError, match="policy: Bare offers no encoder and backbone"):
            PolicySpec("bare").build_torso(OBSERVATIONS)
    finally:
        del registry._entries["policy"]["bare"]
    with pytest.raises(UserError, match=r"policy\.separate_critic: a torso has no critic"):
        PolicySpec("gru", {"separate_critic": True}).build_torso(OBSERVATIONS)
    with pytest.raises(UserError, match=r"policy.hiden_size: unknown key"):
        PolicySpec("gru", {"hiden_size": 3}).build_torso(OBSERVATIONS)
    with pytest.raises(UserError, match="observation_space: Text"):
        PolicySpec("gru").build_torso(spaces.Text(3))


def test_a_torso_without_weights_gives_torchs_type() -> None:
    class Nothing(torch.nn.Identity):
        out_features = 5

    encoder = PolicySpec("mlp").build_torso(OBSERVATIONS).encoder
    assert Torso(encoder, Nothing()).encode(window()[0]).dtype == torch.float32  # type: ignore[arg-type]
