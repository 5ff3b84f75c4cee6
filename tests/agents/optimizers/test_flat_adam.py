"""FlatAdam takes, bit for bit, the steps of torch's fused Adam on one vector."""

import torch
from torch import nn
from torch.optim.adam import adam

from palaestra.agents.optimizers.flat_adam import AdamConfig, FlatAdam


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


def loss(module: nn.Module, i: int) -> torch.Tensor:
    x = torch.randn(16, 3, generator=torch.Generator().manual_seed(i))
    return module(x).square().sum() * 3


def test_its_steps_are_those_of_the_fused_function_bit_for_bit() -> None:
    ours, theirs = network(), network()
    flat = FlatAdam(AdamConfig(eps=1e-5), ours)
    parameters = list(theirs.parameters())
    moments = [torch.zeros(sum(p.numel() for p in parameters)) for _ in range(2)]
    steps = torch.zeros(())
    for i in range(6):
        flat.zero_grad()
        loss(ours, i).backward()
        norm = flat.step(1e-2, 0.5)
        grads = torch.autograd.grad(loss(theirs, i), parameters)
        grad = torch.cat([g.flatten() for g in grads])
        assert torch.equal(norm, torch.linalg.vector_norm(grad))
        grad = grad * (0.5 / (norm + 1e-6)).clamp(max=1.0)
        vector = torch.cat([p.detach().flatten() for p in parameters])
        adam(
            [vector], [grad], [moments[0]], [moments[1]], [], [steps],
            fused=True, amsgrad=False, beta1=0.9, beta2=0.999, lr=1e-2, weight_decay=0.0,
            eps=1e-5, maximize=False,
        )  # fmt: skip
        nn.utils.vector_to_parameters(vector, parameters)
        for one, other in zip(ours.parameters(), parameters, strict=True):
            assert torch.equal(one, other)


def test_moments_are_stored_by_parameter_name() -> None:
    module = network()
    optimizer = FlatAdam(AdamConfig(), module)
    assert optimizer.state_dict()["steps"] == 0
    optimizer.zero_grad()
    loss(module, 0).backward()
    optimizer.step(1e-2, 0.5)
    state = optimizer.state_dict()
    assert state["steps"] == 1
    assert {n: x.shape for n, x in state["exp_avg"].items()} == {
        n: p.shape for n, p in module.named_parameters()
    }
