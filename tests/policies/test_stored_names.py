"""What a stored run relies on: names of parameters and states, and the order of random draws."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

import palaestra.policies as policies
from palaestra.policies.base import Policy

IMAGE = spaces.Dict(
    image=spaces.Box(0, 255, (1, 36, 36), np.uint8),
    place=spaces.Discrete(3),
    action_mask=spaces.MultiBinary(4),
)
SMALL = {"width": 16, "heads": 2}
EVERY_MIXER = ["attention", "rat", "mesa", "gla", "deltanet", "gated-deltanet", "gru", "lstm"]

CASES: dict[str, tuple[spaces.Space[Any], str, dict[str, Any]]] = {
    "mlp": (spaces.Box(-1, 1, (3,)), "mlp", {}),
    "gru": (spaces.Box(-1, 1, (3,)), "gru", {"hidden_size": 8, "num_layers": 2}),
    "gru of images, separate critic": (IMAGE, "gru", {"hidden_size": 8, "separate_critic": True}),
    "lstm": (spaces.Box(-1, 1, (3,)), "lstm", {"hidden_size": 8, "horizon": 20}),
    "lstm, separate critic": (spaces.Discrete(3), "lstm", {"separate_critic": True}),
    "sliding-attention": (spaces.Box(-1, 1, (3,)), "sliding-attention", SMALL),
    "attention": (spaces.Box(-1, 1, (3,)), "attention", SMALL),
    "rat": (spaces.Box(-1, 1, (3,)), "rat", SMALL),
    "rat-swa": (spaces.Box(-1, 1, (3,)), "rat-swa", SMALL),
    "gla": (spaces.Box(-1, 1, (3,)), "gla", SMALL | {"convolution": True}),
    "deltanet": (spaces.Box(-1, 1, (3,)), "deltanet", SMALL),
    "gated-deltanet": (spaces.Box(-1, 1, (3,)), "gated-deltanet", SMALL),
    "mesa": (spaces.Box(-1, 1, (3,)), "mesa", SMALL | {"separate_critic": True}),
    "mixture": (spaces.Box(-1, 1, (3,)), "mixture", SMALL | {"layers": EVERY_MIXER}),
}

STORED: dict[str, Any] = json.loads(Path(__file__).with_suffix(".json").read_text())


def checksum(x: torch.Tensor) -> float:
    """A sum in which every element has a weight of its own, so that their order counts."""
    return float((x.double().flatten() * torch.arange(1.0, x.numel() + 1).double().cos()).sum())


def describe(policy: Policy) -> dict[str, Any]:
    return {
        "weights": {name: checksum(x) for name, x in policy.state_dict().items()},
        "state": {path: list(x.shape) for path, x in policy.initial_state(2).tensors().items()},
    }


@pytest.mark.parametrize("case", CASES)
def test_names_and_first_weights_are_those_of_stored_runs(case: str) -> None:
    space, name, options = CASES[case]
    policy = policies.make(name, space, spaces.Discrete(4), seed=0, **options)
    ours, stored = describe(policy), STORED[case]
    assert list(ours["weights"]) == list(stored["weights"])
    assert [name for name, _ in policy.named_parameters()] == list(stored["weights"])
    assert ours["state"] == stored["state"]
    assert ours["weights"] == pytest.approx(stored["weights"], rel=1e-4, abs=1e-4)
