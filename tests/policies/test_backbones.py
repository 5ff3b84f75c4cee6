"""Laws of the backbones of blocks: windows, resets, sizes, runs."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

import palaestra.agents as agents
import palaestra.policies as policies
from palaestra.agents.ppo import PPOLearner, join_fragments
from palaestra.envs.make import make_vec
from palaestra.errors import UserError
from palaestra.experience.state import State
from palaestra.policies.base import Backbone, PolicySpec
from palaestra.policies.sequence import SequencePolicy
from palaestra.runs.config import RunConfig, load_config
from palaestra.runs.rollouts.collector import Collector
from palaestra.runs.store.folder import RunFolder
from palaestra.runs.training.train import train
from palaestra.runs.training.trainer import Trainer
from tests.runs.survival import SMALL_PPO, assert_same_run

SMALL = {"width": 16, "heads": 2}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("lstm", {"hidden_size": 16, "num_layers": 2}),
    "sliding-attention": ("sliding-attention", SMALL | {"window": 5}),
    "rat": ("rat", SMALL | {"chunk": 4, "context": 40}),
    "rat-short": ("rat", SMALL | {"chunk": 3, "context": 6, "heads": 1}),
    "rat-swa": ("rat-swa", SMALL | {"chunk": 4, "window": 5}),
    "gla": ("gla", SMALL),
    "gla-lightning": ("gla", SMALL | {"decay": "lightning"}),
    "gla-convolved": ("gla", SMALL | {"decay": "none", "convolution": True}),
    "deltanet": ("deltanet", SMALL),
    "gated-deltanet": ("gated-deltanet", SMALL | {"negative_eigenvalues": True}),
    "mesa": ("mesa", SMALL),
    "mesa-unconverged": ("mesa", SMALL | {"solver_steps": 2}),
    "mixture": (
        "mixture",
        SMALL
        | {
            "layers": ["rat", "lstm", "gated-deltanet", "attention", "mesa", "gru", "gla"],
            "rat": {"chunk": 4},
            "attention": {"window": 3},
        },
    ),
}

ONE_OF_EACH = ["lstm", "sliding-attention", "rat-swa", "gla", "gated-deltanet", "mesa", "mixture"]
"""Every mixer once, where its options make no difference."""

EVERY_STATE = ["lstm", "gla-convolved", "mixture"]
"""Every kind of state once, alone or in the mixture."""

B, T, C = 5, 70, 3

MIXERS = ["attention", "rat", "gla", "deltanet", "gated-deltanet", "mesa", "gru", "lstm"]


def build(case: str, dtype: torch.dtype = torch.float64) -> Backbone:
    name, options = CASES[case]
    space = gymnasium.spaces.Box(-1, 1, (C,))
    policy = policies.make(name, space, gymnasium.spaces.Discrete(4), seed=3, **options)
    assert isinstance(policy, SequencePolicy)
    return policy.backbone.to(dtype)


def window(dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(B, T, C, dtype=dtype, generator=generator)
    reset = torch.rand(B, T, generator=generator) < 0.1
    # Adjacent, on both sides of a bound of chunks, first and last, none.
    reset[0, :] = False
    reset[1, [0, 1, 31, 32, 63, 64, T - 1]] = True
    return x, reset


def steps(net: Backbone, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, State]:
    rows = []
    for t in range(x.shape[1]):
        y, state = net.step(x[:, t], state, reset[:, t])
        rows.append(y)
    return torch.stack(rows, 1), state


def assert_states(one: State, two: State, atol: float = 1e-10) -> None:
    ours, theirs = one.tensors(), two.tensors()
    assert ours.keys() == theirs.keys()
    for path in ours:
        torch.testing.assert_close(ours[path], theirs[path], rtol=0, atol=atol, msg=path)


@pytest.mark.parametrize("case", CASES)
def test_steps_equal_one_forward_and_cut_windows_the_whole(case: str) -> None:
    net, (x, reset) = build(case), window()
    with torch.no_grad():
        _, start = net(*fresh(net, seed=1))
        whole, end = net(x, start, reset)
        stepped, step_end = steps(net, x, start, reset)
        torch.testing.assert_close(stepped, whole, rtol=0, atol=1e-10)
        assert_states(step_end, end)
        parts, carried = [], start
        for begin, stop in pairwise((0, 1, 2, 15, 33, T)):
            part, carried = net(x[:, begin:stop], carried, reset[:, begin:stop])
            parts.append(part)
        torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-10)
        assert_states(carried, end)


def fresh(net: Backbone, seed: int = 0) -> tuple[Tensor, State, Tensor]:
    x, reset = window(seed=seed)
    return x, net.initial_state(B), reset


@pytest.mark.parametrize("case", CASES)
def test_gradients_of_steps_are_those_of_the_forward(case: str) -> None:
    net, (x, reset) = build(case), window()
    weight = torch.randn(B, T, net.out_features, dtype=x.dtype)
    grads = []
    for read in (net, lambda *a: steps(net, *a)):
        x = x.detach().requires_grad_()
        y, _ = read(x, net.initial_state(B), reset)
        grads.append(torch.autograd.grad((y * weight).sum(), [x, *net.parameters()]))
    names = ["x", *(name for name, _ in net.named_parameters())]
    # An implicit gradient is that of the solution, which too few solver steps do not reach.
    atol = torch.inf if case == "mesa-unconverged" else 1e-8
    for name, one, two in zip(names, *grads, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=atol, msg=name)


@pytest.mark.parametrize("case", CASES)
def test_an_episode_is_the_same_wherever_it_lies(case: str) -> None:
    net, (x, reset) = build(case), window()
    with torch.no_grad():
        whole, end = net(x, net.initial_state(B), reset)
        for b in range(B):
            bounds = sorted({0, *reset[b].nonzero()[:, 0].tolist(), T})
            for begin, stop in pairwise(bounds):
                first = torch.zeros(1, stop - begin, dtype=torch.bool)
                alone, last = net(x[b : b + 1, begin:stop], net.initial_state(1), first)
                torch.testing.assert_close(alone[0], whole[b, begin:stop], rtol=0, atol=1e-10)
            assert_states(last, end.rows(slice(b, b + 1)))


@pytest.mark.parametrize("case", CASES)
def test_no_gradient_crosses_a_reset(case: str) -> None:
    net, (x, reset) = build(case), window()
    reset[:] = False
    reset[:, 20] = reset[:, 40] = True
    x.requires_grad_()
    start = net.initial_state(B).map(lambda s: s.requires_grad_() if s.is_floating_point() else s)
    y, end = net(x, start, reset)
    carried = [s for s in start.tensors().values() if s.requires_grad]
    last = sum(s.sum() for s in end.tensors().values() if s.requires_grad)
    middle = y[:, 20:40].sum()
    for of, begin, stop in ((middle, 20, 40), (last, 40, T)):
        dx, *dstate = torch.autograd.grad(of, [x, *carried], retain_graph=True, allow_unused=True)
        assert not dx[:, :begin].any()
        assert not dx[:, stop:].any()
        assert dx[:, begin:stop].any()
        assert not any(d.any() for d in dstate if d is not None)


@pytest.mark.parametrize("case", CASES)
def test_a_reset_that_is_late_by_a_step_is_noticed(case: str) -> None:
    net, (x, reset) = build(case), window()
    with torch.no_grad():
        right, _ = net(x, net.initial_state(B), reset)
        late, _ = net(x, net.initial_state(B), reset.roll(1, 1))
    assert (right - late).abs().max() > 1e-2


@pytest.mark.parametrize("case", CASES)
def test_broken_numbers_stay_in_their_episode(case: str) -> None:
    net, (x, reset) = build(case), window()
    reset[:] = False
    reset[:, 33] = True
    with torch.no_grad():
        clean, _ = net(x, net.initial_state(B), reset)
        x[:, 5:33] = torch.nan
        for read in (net, lambda *a: steps(net, *a)):
            y, end = read(x, net.initial_state(B), reset)
            torch.testing.assert_close(y[:, 33:], clean[:, 33:], rtol=0, atol=1e-10)
            assert y[:, 5].isnan().all()
            assert all(tensor.isfinite().all() for tensor in end.tensors().values())


@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_ppo_sees_a_ratio_of_one_before_it_learns(case: str) -> None:
    """On fragments that begin inside episodes too, in single precision."""
    name, options = CASES[case]
    vector = make_vec("palaestra/GaussianBandit-v0", 6, K=3, T=13)
    both = vector.single_observation_space, vector.single_action_space
    agent = agents.make("ppo", *both, policy=PolicySpec(name, options), seed=1)
    collector = Collector(vector, agent.make_actor(), np.random.default_rng(0), list(range(6)))
    learner = agent.make_learner()
    assert isinstance(learner, PPOLearner)
    for _ in range(3):
        fragment, _ = collector.collect(21)
        batch = join_fragments([fragment], learner.config).sequences(torch.arange(6))
        assert batch.reset.any()
        output, _ = learner.policy(batch.observation, batch.state, batch.reset)
        log_ratio = output.distribution.log_prob(batch.action) - batch.log_prob
        assert log_ratio.abs().max() < 1e-5


@pytest.mark.parametrize("case", CASES)
def test_in_single_precision_acting_and_learning_differ_by_rounding_alone(case: str) -> None:
    """Neither is further from the other than twice what they are from double precision."""
    exact, single = build(case), build(case, torch.float32)
    exact.load_state_dict(single.state_dict())
    x, reset = window(torch.float32)
    with torch.no_grad():
        truth, _ = exact(x.double(), exact.initial_state(B), reset)
        learned, _ = single(x, single.initial_state(B), reset)
        acted, _ = steps(single, x, single.initial_state(B), reset)
    error = (acted - truth).abs().max()
    assert error < 1e-4
    band = 8 * torch.finfo(torch.float32).eps * truth.abs().max()
    assert (learned - truth).abs().max() <= 2 * error + band
    assert (learned - acted).abs().max() <= 3 * error + band


# --- sizes --------------------------------------------------------------------------------------


def mixer_size(mixer: str, w: int, H: int) -> int:
    """The number of parameters of a mixer, as docs/policies.md gives it."""
    d = w // H
    return {
        "attention": 3 * w**2,
        "rat": 3 * w**2 + (2 if H % 2 else 4) * w * d + w,
        "gla": 4 * w**2 + 33 * w + d,
        "deltanet": 3 * w**2 + 12 * w + w * H + d,
        "gated-deltanet": 4 * w**2 + 12 * w + 2 * w * H + 2 * H + d,
        "mesa": 3 * w**2 + 9 * w + 2 * w * H + 2 * H + d,
        "gru": 6 * w**2 + 6 * w,
        "lstm": 8 * w**2 + 8 * w,
    }[mixer]


@pytest.mark.parametrize(("width", "heads", "expansion"), [(16, 2, 3), (48, 3, 1), (64, 4, 3)])
def test_mixtures_have_as_many_parameters_as_documented(
    width: int, heads: int, expansion: int
) -> None:
    for names in (*([name] for name in MIXERS), MIXERS):
        net = make_backbone("mixture", layers=names, width=width, heads=heads, expansion=expansion)
        others = (1 + 3 * expansion) * width**2 + 2 * width
        blocks = sum(mixer_size(name, width, heads) + others for name in names)
        assert sum(p.numel() for p in net.parameters()) == C * width + width + blocks, names


def state_size(mixer: str, w: int, H: int) -> int:
    """How many numbers a mixer remembers of each row, as docs/policies.md gives it, by default."""
    d = w // H
    return {
        "attention": 2 * w * 16,
        "rat": 2 * w * 16 + 2 * w,
        "gla": w * d,
        "deltanet": w * d + 9 * w,
        "gated-deltanet": w * d + 9 * w,
        "mesa": 2 * w * d + 6 * w,
        "gru": w,
        "lstm": 2 * w,
    }[mixer]


@pytest.mark.parametrize("mixer", MIXERS)
def test_states_are_as_large_as_documented(mixer: str) -> None:
    state = make_backbone("mixture", layers=[mixer], width=48, heads=3).initial_state(5)
    numbers = [s.numel() for path, s in state.tensors().items() if not path.endswith("pos")]
    assert sum(numbers) == 5 * state_size(mixer, 48, 3)


def make_backbone(name: str, **options: Any) -> Backbone:
    space = gymnasium.spaces.Box(-1, 1, (C,))
    policy = policies.make(name, space, gymnasium.spaces.Discrete(4), **options)
    assert isinstance(policy, SequencePolicy)
    return policy.backbone


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("sliding-attention", ["attention"] * 3),
        ("rat", ["rat"] * 3),
        ("rat-swa", ["attention", "rat", "attention"]),
        ("gla", ["gla"] * 3),
        ("deltanet", ["deltanet"] * 3),
        ("gated-deltanet", ["gated-deltanet"] * 3),
        ("mesa", ["mesa"] * 3),
    ],
)
def test_a_named_backbone_is_a_mixture_of_that_name(name: str, layers: list[str]) -> None:
    options = {"width": 16, "heads": 2, "expansion": 2}
    one = make_backbone(name, layers=3, **options).double()
    two = make_backbone("mixture", layers=layers, **options).double()
    two.load_state_dict(one.state_dict())
    x, state, reset = fresh(one)
    assert torch.equal(one(x, state, reset)[0], two(x, two.initial_state(B), reset)[0])


def test_the_residual_stream_starts_with_the_variance_of_its_input_doubled() -> None:
    for blocks in (1, 4):
        net = make_backbone("sliding-attention", width=256, heads=4, layers=blocks, window=1)
        for block in net.blocks:
            assert block.out.weight.std().item() == pytest.approx((256 * blocks) ** -0.5, rel=0.05)


def test_bad_options_are_named() -> None:
    with pytest.raises(UserError, match=r"layers.1: 'mess' is not accepted: .*'mesa'"):
        make_backbone("mixture", layers=["rat", "mess"])
    with pytest.raises(UserError, match=r"policy.rat.chunks: unknown key; did you mean 'chunk'"):
        make_backbone("mixture", rat={"chunks": 3})
    with pytest.raises(UserError, match="width has to be a multiple of 2 \\* heads = 6"):
        make_backbone("gla", width=64, heads=3)


# --- runs ---------------------------------------------------------------------------------------


def run_config(case: str) -> RunConfig:
    name, options = CASES[case]
    return load_config(
        "demo",
        [
            *SMALL_PPO,
            "total_steps=160",
            "env.options.T=13",
            f"policy={{name: {name}}}",
            *(f"policy.{key}={value}" for key, value in options.items()),
        ],
    )


@pytest.mark.parametrize("case", EVERY_STATE)
def test_ppo_trains_it_and_an_interrupted_run_equals_the_straight_one(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, advance = run_config(case), Trainer._advance
    folder = train(config, "straight", root=tmp_path, quiet=True)
    assert folder.manifest["status"] == "succeeded"

    def breaking(self: Trainer) -> Any:
        done = advance(self)
        if self.updates == 3:
            raise ValueError("a bug")
        return done

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_advance", breaking)
        with pytest.raises(ValueError, match="a bug"):
            train(config, "broken", root=tmp_path, quiet=True)
    assert RunFolder.open("broken", tmp_path).manifest["status"] == "failed"
    train(config, "broken", root=tmp_path, quiet=True, resume="must")
    assert_same_run(tmp_path / "straight", tmp_path / "broken")
