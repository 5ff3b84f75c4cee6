"""FlatAdam takes the steps of torch's Adam after torch's clipping."""

import torch
from torch import nn

from palaestra.agents.optimizers.flat_adam import FlatAdam


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()


def losses(module: nn.Module, n: int) -> list[torch.Tensor]:
    x = torch.randn(n, 16, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return [module(batch).square().sum() * 3 for batch in x]


def test_its_steps_are_those_of_adam_after_clipping_by_the_global_norm() -> None:
    ours, theirs = network(), network()
    flat = FlatAdam(ours, 1e-5)
    adam = torch.optim.Adam(theirs.parameters(), lr=1e-2, eps=1e-5)
    for step in range(6):
        rate = 1e-2 / (step + 1)
        flat.zero_grad()
        losses(ours, 6)[step].backward()
        norm = flat.step(rate, 0.5)
        adam.zero_grad()
        losses(theirs, 6)[step].backward()
        expected = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        adam.param_groups[0]["lr"] = rate
        adam.step()
        torch.testing.assert_close(norm, expected, rtol=1e-12, atol=0)
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


def test_it_goes_on_exactly_where_it_was_saved() -> None:
    one, other = network(), network()
    first, second = FlatAdam(one, 1e-5), FlatAdam(other, 1e-5)
    for step in range(6):
        if step == 3:
            other.load_state_dict(one.state_dict())
            second.load_state_dict(first.state_dict())
        for module, optimizer in ((one, first), (other, second))[: 1 if step < 3 else 2]:
            optimizer.zero_grad()
            losses(module, 6)[step].backward()
            optimizer.step(1e-2, 0.5)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_moments_are_stored_by_parameter_name() -> None:
    module = network()
    optimizer = FlatAdam(module, 1e-5)
    assert optimizer.state_dict()["steps"] == 0
    optimizer.zero_grad()
    losses(module, 1)[0].backward()
    optimizer.step(1e-2, 0.5)
    state = optimizer.state_dict()
    assert state["steps"] == 1
    assert {n: x.shape for n, x in state["exp_avg"].items()} == {
        n: p.shape for n, p in module.named_parameters()
    }
