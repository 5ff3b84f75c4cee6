"""The policy `attention`: a stack of sliding attention, and what became of its first version."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

import palaestra.agents as agents
import palaestra.policies as policies
from palaestra.errors import UserError
from palaestra.policies.base import PolicySpec

OBSERVATIONS, ACTIONS = spaces.Box(-1, 1, (3,)), spaces.Discrete(4)
SMALL = {"width": 16, "heads": 2}

FIRST_VERSION = {
    "backbone.input.weight": (16, 3),
    "backbone.input.bias": (16,),
    "backbone.blocks.0.norm_1.weight": (16,),
    "backbone.blocks.0.norm_1.bias": (16,),
    "backbone.blocks.0.norm_2.weight": (16,),
    "backbone.blocks.0.norm_2.bias": (16,),
    "backbone.blocks.0.qkv.weight": (48, 16),
    "backbone.blocks.0.out.weight": (16, 16),
    "backbone.blocks.0.mlp.0.weight": (64, 16),
    "backbone.blocks.0.mlp.0.bias": (64,),
    "backbone.blocks.0.mlp.2.weight": (16, 64),
    "backbone.blocks.0.mlp.2.bias": (16,),
    "backbone.norm.weight": (16,),
    "backbone.norm.bias": (16,),
    "action_head.linear.weight": (4, 16),
    "action_head.linear.bias": (4,),
    "value_head.linear.weight": (1, 16),
    "value_head.linear.bias": (1,),
}
"""Parameters of the first version with one block."""


def test_it_is_sliding_attention_whose_window_is_the_context() -> None:
    one = policies.make("attention", OBSERVATIONS, ACTIONS, seed=3, context=7, **SMALL)
    two = policies.make("sliding-attention", OBSERVATIONS, ACTIONS, seed=3, window=7, **SMALL)
    x = torch.randn(4, 30, 3, generator=torch.Generator().manual_seed(0))
    reset = torch.rand(4, 30, generator=torch.Generator().manual_seed(1)) < 0.05
    for policy in (one, two):
        assert policy.state_dict().keys() == two.state_dict().keys()
    ours, state = one(x, one.initial_state(4), reset)
    theirs, other = two(x, two.initial_state(4), reset)
    assert torch.equal(ours.value, theirs.value)
    assert state.tensors()["layers.0.k"].shape == other.tensors()["layers.0.k"].shape


def test_a_layer_sees_as_many_steps_as_the_context() -> None:
    policy = policies.make("attention", OBSERVATIONS, ACTIONS, context=5, layers=1, **SMALL)
    x = torch.randn(1, 20, 3, requires_grad=True)
    output, _ = policy(x, policy.initial_state(1), torch.zeros(1, 20, dtype=torch.bool))
    (dx,) = torch.autograd.grad(output.value[0, 12], x)
    assert dx[0].any(1).nonzero()[:, 0].tolist() == [8, 9, 10, 11, 12]


def first_version() -> dict[str, Tensor]:
    return {name: torch.zeros(shape) for name, shape in FIRST_VERSION.items()}


def test_weights_of_its_first_version_are_refused_by_name() -> None:
    options = SMALL | {"layers": 1}
    spec = PolicySpec("attention", options)
    message = "policy 'attention': these weights are of an earlier version.*trained anew"
    weights = {name: x.numpy() for name, x in first_version().items()}
    agent = agents.make("ppo", OBSERVATIONS, ACTIONS, policy=spec)
    with pytest.raises(UserError, match=message):
        agent.make_actor().load_weights(weights)
    learner = agent.make_learner()
    assert learner is not None
    with pytest.raises(UserError, match=message):
        learner.load_state_dict(learner.state_dict() | {"policy": weights})
    torso = spec.build_torso(OBSERVATIONS)
    below = {name: x for name, x in first_version().items() if name.startswith("backbone.")}
    with pytest.raises(UserError, match=message):
        torso.load_state_dict(below)


def test_its_own_weights_are_loaded() -> None:
    one, two = (
        policies.make("attention", OBSERVATIONS, ACTIONS, seed=seed, **SMALL) for seed in (0, 1)
    )
    two.load_state_dict(one.state_dict())
    for path, weight in one.state_dict().items():
        np.testing.assert_array_equal(two.state_dict()[path], weight)
