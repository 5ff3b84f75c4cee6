"""What every registered policy has to keep, whatever its backbone."""

import copy
import pickle
import subprocess
import sys
from itertools import pairwise
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import Space, spaces
from gymnasium.vector.utils import batch_space
from torch import Tensor

import palaestra.policies as policies
from palaestra.errors import UserError
from palaestra.experience.state import State, concatenate
from palaestra.policies.base import Policy, PolicySpec
from palaestra.policies.mlp import MLP
from palaestra.policies.sequence import SequenceConfig, SequencePolicy
from palaestra.registry import registry

NAMES = [name for name, e in registry.entries("policy").items() if e.origin == "palaestra"]

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "gru": [{"hidden_size": 16, "num_layers": 2}, {"hidden_size": 16, "separate_critic": True}],
    "attention": [
        {"width": 16, "heads": 2, "context": 4},
        {"width": 16, "heads": 2, "context": 64, "separate_critic": True},
    ],
}

CASES = [(name, options) for name in NAMES for options in OPTIONS.get(name, [{}])]

OBSERVATIONS = spaces.Box(-1, 1, (3,))
ACTIONS = spaces.Discrete(4)
B, T = 6, 20


def window(dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(B, T, 3, dtype=dtype, generator=generator)
    return x, torch.rand(B, T, generator=generator) < 0.15


def build(name: str, options: dict[str, Any], dtype: torch.dtype = torch.float64) -> Policy:
    return policies.make(name, OBSERVATIONS, ACTIONS, seed=3, **options).to(dtype)


@torch.no_grad()
def read(policy: Policy, x: Tensor, reset: Tensor, state: State) -> tuple[Tensor, State]:
    """Log-probabilities and value of a window, `[B, T, A + 1]`."""
    output, state = policy(x, state, reset)
    return join(output), state


@torch.no_grad()
def read_steps(policy: Policy, x: Tensor, reset: Tensor, state: State) -> tuple[Tensor, State]:
    rows = []
    for t in range(x.shape[1]):
        output, state = policy.step(x[:, t], state, reset[:, t])
        rows.append(join(output))
    return torch.stack(rows, 1), state


def join(output: Any) -> Tensor:
    return torch.cat([output.distribution.log_probs, output.value[..., None]], -1)


def assert_states_equal(one: State, two: State, atol: float) -> None:
    ours, theirs = one.tensors(), two.tensors()
    assert ours.keys() == theirs.keys()
    for path in ours:
        torch.testing.assert_close(ours[path], theirs[path], rtol=0, atol=atol)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_steps_equal_one_forward_and_windows_split_anywhere(
    name: str, options: dict[str, Any]
) -> None:
    policy, rng = build(name, options), np.random.default_rng(0)
    state = policy.initial_state(B)
    for seed in range(2):
        x, reset = window(torch.float64, seed)
        whole, end = read(policy, x, reset, state)
        stepped, step_end = read_steps(policy, x, reset, state)
        torch.testing.assert_close(stepped, whole, rtol=0, atol=1e-10)
        assert_states_equal(step_end, end, 1e-10)
        cuts = [0, *sorted(rng.choice(np.arange(1, T), 3, replace=False)), T]
        parts, carried = [], state
        for start, stop in pairwise(cuts):
            part, carried = read(policy, x[:, start:stop], reset[:, start:stop], carried)
            parts.append(part)
        torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-10)
        assert_states_equal(carried, end, 1e-10)
        state = end


@pytest.mark.parametrize(("name", "options"), CASES)
def test_in_single_precision_steps_and_forward_differ_by_rounding_alone(
    name: str, options: dict[str, Any]
) -> None:
    exact, single = build(name, options), build(name, options, torch.float32)
    exact.load_state_dict(single.state_dict())
    x, reset = window(torch.float32)
    truth, _ = read(exact, x.double(), reset, exact.initial_state(B))
    whole, _ = read(single, x, reset, single.initial_state(B))
    stepped, _ = read_steps(single, x, reset, single.initial_state(B))
    band = 8 * torch.finfo(torch.float32).eps * truth.abs().max()
    budget = 2 * (stepped - truth).abs().max() + band
    assert (whole - truth).abs().max() <= budget
    assert (whole - stepped).abs().max() <= budget + band
    # What PPO sees with a learning rate of 0 as the logarithm of its ratio.
    assert (whole - stepped)[..., :-1].abs().max() < 1e-5


@pytest.mark.parametrize(("name", "options"), CASES)
def test_time_major_memory_gives_the_same(name: str, options: dict[str, Any]) -> None:
    policy = build(name, options)
    x, reset = window(torch.float64)
    view = x.transpose(0, 1).contiguous().transpose(0, 1)
    reset_view = reset.t().contiguous().t()
    one, _ = read(policy, x, reset, policy.initial_state(B))
    two, _ = read(policy, view, reset_view, policy.initial_state(B))
    torch.testing.assert_close(one, two, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_reset_starts_afresh_and_changes_no_other_row_by_one_bit(
    name: str, options: dict[str, Any]
) -> None:
    policy = build(name, options, torch.float32)
    x, reset = window(torch.float32)
    _, state = read(policy, x, reset, policy.initial_state(B))
    x, reset = window(torch.float32, seed=1)
    reset[2] = False
    other = reset.clone()
    other[2, 0] = other[2, 7] = True
    rows = [0, 1, 3, 4, 5]
    for how in (read, read_steps):
        one, end_one = how(policy, x, reset, state)
        two, end_two = how(policy, x, other, state)
        assert torch.equal(one[rows], two[rows])
        assert_states_equal(end_one.rows(rows), end_two.rows(rows), 0)
        fresh, _ = how(policy, x, other, policy.initial_state(B))
        assert torch.equal(two[2], fresh[2])
        assert torch.equal(one[2], two[2]) != policy.has_memory


@pytest.mark.parametrize(("name", "options"), CASES)
def test_no_gradient_and_no_broken_number_crosses_a_reset(
    name: str, options: dict[str, Any]
) -> None:
    policy = build(name, options)
    x, reset = window(torch.float64)
    reset[:] = False
    reset[:, 9] = True
    state = policy.initial_state(B)
    x.requires_grad_()
    clean = join(policy(x, state, reset)[0])
    (dx,) = torch.autograd.grad(clean[:, 9:].sum(), x)
    assert not dx[:, :9].any()
    assert dx[:, 9:].any()
    broken = x.detach().clone()
    broken[:, 2:9] = torch.nan
    after, end = read(policy, broken, reset, state)
    assert torch.equal(after[:, 9:], clean[:, 9:].detach())
    assert all(tensor.isfinite().all() for tensor in end.tensors().values())
    stepped, _ = read_steps(policy, broken, reset, state)
    torch.testing.assert_close(stepped[:, 9:], clean[:, 9:].detach(), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_every_parameter_has_a_gradient(name: str, options: dict[str, Any]) -> None:
    policy = build(name, options)
    x, reset = window(torch.float64)
    output, _ = policy(x, policy.initial_state(B), reset)
    loss = output.distribution.log_prob(torch.zeros(B, T)) + output.value
    loss.sum().backward()
    for path, parameter in policy.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.isfinite().all(), path


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_state_survives_its_tensors_and_its_rows(name: str, options: dict[str, Any]) -> None:
    policy = build(name, options)
    x, reset = window(torch.float64)
    _, state = read(policy, x, reset, policy.initial_state(B))
    assert policy.has_memory == bool(state.tensors())
    assert all(len(tensor) == B for tensor in state.tensors().values())
    back = policy.initial_state(B).with_tensors(state.tensors())
    assert_states_equal(back, state, 0)
    halves = [state.rows(slice(0, 2)), state.rows(np.array([2, 3, 4, 5]))]
    assert_states_equal(concatenate(halves, torch.cat), state, 0)
    assert_states_equal(pickle.loads(pickle.dumps(state)), state, 0)
    before = copy.deepcopy(state)
    policy.step(x[:, 0], state, reset[:, 0])
    assert_states_equal(state, before, 0)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_weights_depend_on_the_seed_alone(name: str, options: dict[str, Any]) -> None:
    spec = PolicySpec(name, options)
    torch.manual_seed(0)
    one = spec.build(OBSERVATIONS, ACTIONS, 1).state_dict()
    torch.manual_seed(5)
    drawn = torch.get_rng_state()
    two = spec.build(OBSERVATIONS, ACTIONS, 1).state_dict()
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(one[path], two[path]) for path in one)
    other = spec.build(OBSERVATIONS, ACTIONS, 2).state_dict()
    assert not all(torch.equal(one[path], other[path]) for path in one)


SPACES: dict[str, Space[Any]] = {
    "box": spaces.Box(-1, 1, (2, 2), np.float64),
    "discrete": spaces.Discrete(5),
    "multi-discrete": spaces.MultiDiscrete([3] * 9),
    "image": spaces.Box(0, 255, (36, 36, 1), np.uint8),
    "dict": spaces.Dict(a=spaces.Discrete(2), b=spaces.Box(0, 255, (2, 36, 36), np.uint8)),
    "mask": spaces.Dict(
        observation=spaces.MultiDiscrete([3] * 9), action_mask=spaces.MultiBinary(4)
    ),
}


# The encoder does not know what reads it: every space once, every policy once.
@pytest.mark.parametrize(
    ("name", "space"), [*(("gru", space) for space in SPACES), *((name, "mask") for name in NAMES)]
)
def test_every_observation_space_runs(name: str, space: str) -> None:
    policy = policies.make(name, SPACES[space], ACTIONS)
    batch = batch_space(SPACES[space], 3)
    batch.seed(0)
    steps = [as_tensors(batch.sample()) for _ in range(2)]
    state, reset = policy.initial_state(3), torch.zeros(3, 2, dtype=torch.bool)
    sequence = stack(steps)
    output, _ = policy(sequence, state, reset)
    for t, observation in enumerate(steps):
        stepped, state = policy.step(observation, state, reset[:, t])
        torch.testing.assert_close(stepped.value, output.value[:, t], rtol=1e-4, atol=1e-5)
    assert output.value.dtype == torch.float32
    action = stepped.distribution.sample(np.random.default_rng(0))
    assert action.shape == (3,)


def as_tensors(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {key: as_tensors(value) for key, value in observation.items()}
    return torch.from_numpy(np.asarray(observation))


def stack(steps: list[Any]) -> Any:
    if isinstance(steps[0], dict):
        return {key: stack([step[key] for step in steps]) for key in steps[0]}
    return torch.stack(steps, 1)


def test_the_action_mask_reaches_the_action_head_alone() -> None:
    space = spaces.Dict(observation=OBSERVATIONS, action_mask=spaces.MultiBinary(4))
    policy = policies.make("mlp", space, ACTIONS)
    mask = torch.tensor([[1, 0, 0, 1], [0, 1, 1, 0]], dtype=torch.int8)
    observation = {"observation": torch.zeros(2, 3), "action_mask": mask}
    output, _ = policy.step(observation, policy.initial_state(2), torch.zeros(2, dtype=torch.bool))
    p = output.distribution.log_probs.exp()  # type: ignore[attr-defined]
    torch.testing.assert_close(p, mask / 2)


def test_bad_options_are_named() -> None:
    with pytest.raises(UserError, match="unknown policy 'grue': did you mean 'gru'"):
        policies.make("grue", OBSERVATIONS, ACTIONS)
    with pytest.raises(UserError, match=r"policy.hiden_size: unknown key; did you mean 'hidden_s"):
        policies.make("gru", OBSERVATIONS, ACTIONS, hiden_size=3)
    with pytest.raises(UserError, match="width has to be a multiple of 2 \\* heads = 10"):
        policies.make("attention", OBSERVATIONS, ACTIONS, width=64, heads=5)


def test_a_plug_in_overrides_make_backbone_alone() -> None:
    class WideConfig(SequenceConfig):
        width: int = 7

    class Wide(SequencePolicy):
        Config: ClassVar = WideConfig

        def make_backbone(self, in_features: int) -> MLP:
            return MLP(in_features, (self.config.width,), "relu")

    policy = Wide(OBSERVATIONS, gymnasium.spaces.Box(-1, 1, (2,)), WideConfig(width=9))
    output, _ = policy.step(torch.zeros(5, 3), policy.initial_state(5), torch.zeros(5).bool())
    assert output.distribution.mode().shape == (5, 2)
    assert not policy.has_memory


def test_importing_the_room_does_not_import_torch() -> None:
    modules = "sys, palaestra.policies, palaestra.experience.state"
    code = f"import {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
