"""Optimisers take the steps of torch's own after torch's clipping, by name."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from palaestra.agents.optimizers import make, resolve
from palaestra.errors import UserError
from palaestra.registry import Entry, registry

CASES: list[tuple[dict[str, Any], Any]] = [
    ({"name": "adam", "eps": 1e-6}, lambda p: torch.optim.Adam(p, eps=1e-6)),
    (
        {"name": "adam", "beta1": 0.8, "beta2": 0.9},
        lambda p: torch.optim.Adam(p, betas=(0.8, 0.9), eps=1e-5),
    ),
    (
        {"name": "adamw", "weight_decay": 0.1},
        lambda p: torch.optim.AdamW(p, weight_decay=0.1, eps=1e-5),
    ),
    ({"name": "sgd"}, lambda p: torch.optim.SGD(p)),
    ({"name": "sgd", "momentum": 0.9}, lambda p: torch.optim.SGD(p, momentum=0.9)),
    (
        {"name": "sgd", "momentum": 0.9, "nesterov": True},
        lambda p: torch.optim.SGD(p, momentum=0.9, nesterov=True),
    ),
    ({"name": "rmsprop", "alpha": 0.9}, lambda p: torch.optim.RMSprop(p, alpha=0.9, eps=1e-5)),
    (
        {"name": "rmsprop", "momentum": 0.8, "centered": True},
        lambda p: torch.optim.RMSprop(p, momentum=0.8, centered=True, eps=1e-5),
    ),
]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()


def loss(module: nn.Module, i: int) -> Tensor:
    rng = torch.Generator().manual_seed(i)
    return module(torch.randn(16, 3, generator=rng, dtype=torch.float64)).square().sum() * 3


def descend(module: nn.Module, optimizer: Any, steps: range) -> None:
    for i in steps:
        optimizer.zero_grad()
        loss(module, i).backward()
        optimizer.step(1e-2, 0.5)


def flat(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


@pytest.mark.parametrize(("options", "theirs"), CASES)
def test_steps_are_those_of_torch_after_clipping_by_the_global_norm(
    options: dict[str, Any], theirs: Any
) -> None:
    ours, other = network(), network()
    optimizer, torch_optimizer = make(options, ours), theirs(other.parameters())
    for i in range(6):
        rate = 1e-2 / (i + 1)
        optimizer.zero_grad()
        loss(ours, i).backward()
        norm = optimizer.step(rate, 0.5)
        torch_optimizer.zero_grad()
        loss(other, i).backward()
        expected = nn.utils.clip_grad_norm_(other.parameters(), 0.5)
        for group in torch_optimizer.param_groups:
            group["lr"] = rate
        torch_optimizer.step()
        torch.testing.assert_close(norm, expected, rtol=1e-12, atol=0)
        torch.testing.assert_close(flat(ours), flat(other), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("options", [options for options, _ in CASES])
def test_it_resumes_exactly_where_it_was_saved(options: dict[str, Any]) -> None:
    one, other = network(), network()
    first, second = make(options, one), make(options, other)
    descend(one, first, range(3))
    other.load_state_dict(one.state_dict())
    second.load_state_dict(first.state_dict())
    descend(one, first, range(3, 6))
    descend(other, second, range(3, 6))
    assert torch.equal(flat(one), flat(other))
    assert first.state_dict()["steps"] == 6


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("options", [options for options, _ in CASES])
def test_a_gradient_that_is_not_finite_changes_nothing(options: dict[str, Any], bad: float) -> None:
    module, twin = network(), network()
    optimizer, other = make(options, module), make(options, twin)
    descend(module, optimizer, range(3))
    descend(twin, other, range(3))
    optimizer.zero_grad()
    (loss(module, 3) * bad).backward()
    assert not optimizer.step(1e-2, 0.5).isfinite()
    assert torch.equal(flat(module), flat(twin))
    # Moments and the number of steps too: what follows is as if it had not been.
    descend(module, optimizer, range(4, 6))
    descend(twin, other, range(4, 6))
    assert torch.equal(flat(module), flat(twin))
    assert optimizer.state_dict()["steps"] == 5


@pytest.mark.parametrize("options", [options for options, _ in CASES])
def test_units_that_were_reset_are_forgotten_and_no_others(options: dict[str, Any]) -> None:
    module = network()
    optimizer = make(options, module)
    descend(module, optimizer, range(2))
    before = optimizer.state_dict()
    optimizer.forget("0.weight", torch.tensor([1, 3]))
    after = optimizer.state_dict()
    assert after.pop("steps") == before.pop("steps")
    for name, moments in after.items():
        assert (moments["0.weight"][[1, 3]] == 0).all()
        moments["0.weight"][[1, 3]] = before[name]["0.weight"][[1, 3]]
        assert all(torch.equal(x, before[name][n]) for n, x in moments.items())
    optimizer.forget("2.bias", torch.tensor([True, False]))
    for moments in {k: v for k, v in optimizer.state_dict().items() if k != "steps"}.values():
        assert moments["2.bias"][0] == 0
        assert moments["2.bias"][1] != 0


def test_gradients_are_reduced_as_one_vector_before_they_are_clipped() -> None:
    seen = []

    def halve(grad: Tensor) -> None:
        seen.append(grad.numel())
        grad.mul_(0.5)

    module, plain = network(), network()
    with_hook, without = make({"name": "sgd"}, module, halve), make({"name": "sgd"}, plain)
    for optimizer, net in ((with_hook, module), (without, plain)):
        optimizer.zero_grad()
        loss(net, 0).backward()
    assert with_hook.step(0.1, 1e9) == without.step(0.1, 1e9) / 2
    assert seen == [sum(p.numel() for p in module.parameters())]


def test_parameters_that_do_not_learn_stay_as_they_are() -> None:
    module = network()
    module.get_submodule("0").requires_grad_(False)
    frozen, learned = module.get_parameter("0.weight").clone(), module.get_parameter("2.weight")
    before = learned.detach().clone()
    optimizer = make({"name": "adam"}, module)
    descend(module, optimizer, range(2))
    assert torch.equal(module.get_parameter("0.weight"), frozen)
    assert not torch.equal(learned, before)
    assert set(optimizer.state_dict()["exp_avg"]) == {"2.weight", "2.bias"}


def test_defaults_become_explicit_and_adam_needs_no_name() -> None:
    assert resolve({"eps": 1e-8}) == {"name": "adam", "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    assert resolve({"name": "sgd"}) == {"name": "sgd", "momentum": 0.0, "nesterov": False}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "adamm"}, "unknown optimizer 'adamm': did you mean 'adam'"),
        ({"name": "adam", "momentum": 0.9}, "momentum: unknown key"),
        ({"name": "sgd", "nesterov": True}, "nesterov needs a momentum above 0"),
        ({"eps": -1}, "eps: -1 is not accepted"),
        ("adam", "a mapping with name and options is expected"),
    ],
)
def test_bad_options_are_named(options: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve(options)


def test_another_package_can_bring_an_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    from palaestra.agents.optimizers.flat_sgd import FlatSGD

    class Signed(FlatSGD):
        def _update(self, learning_rate: float, skip: Tensor) -> None:
            self._vector.sub_(self._grad.sign() * learning_rate)

    registry.entries("optimizer")
    entry = Entry("optimizer", "signed", Signed, "a test")
    monkeypatch.setitem(registry._entries["optimizer"], "signed", entry)
    module = network()
    before = flat(module)
    descend(module, make({"name": "signed"}, module), range(1))
    torch.testing.assert_close((flat(module) - before).abs(), torch.full_like(before, 1e-2))
