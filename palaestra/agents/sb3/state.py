"""Networks, optimisers and replay buffers of Stable-Baselines3 as plain nested arrays."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from palaestra.errors import UserError
from palaestra.experience.fragment import map_tree
from palaestra.experience.weights import Weights

_REPLAYED = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def weights(module: nn.Module) -> Weights:
    """Return parameters and buffers by name, each once; the arrays are views where they can be."""
    return {name: tensor.numpy(force=True) for name, tensor in _tensors(module).items()}


def load_weights(module: nn.Module, stored: Weights) -> None:
    """Copy parameters and buffers into `module`.

    Raises:
      UserError: names or shapes are not those of `weights`.
    """
    tensors = _tensors(module)
    ours = {(name, *tensor.shape) for name, tensor in tensors.items()}
    theirs = {(name, *array.shape) for name, array in stored.items()}
    if ours != theirs:
        raise UserError(
            f"weights: {sorted(theirs - ours) or 'too few'} do not fit the network, which expects "
            f"{sorted(ours - theirs) or 'nothing more'} (name and shape)."
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(torch.from_numpy(np.array(stored[name])))


def is_finite(module: nn.Module) -> bool:
    """Whether all parameters are finite numbers."""
    return bool(torch.stack([x.isfinite().all() for x in module.parameters()]).all())


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def optimizer_state(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Any]:
    """Return moments and step counters by parameter name, and the step size of each group."""
    names: dict[Tensor, str] = {x: name for name, x in module.named_parameters()}
    moments = {
        names[parameter]: {key: value.numpy(force=True) for key, value in state.items()}
        for parameter, state in optimizer.state.items()
    }
    return {"moments": moments, "lr": [group["lr"] for group in optimizer.param_groups]}


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, module: nn.Module, stored: dict[str, Any]
) -> None:
    """Continue where `optimizer_state` was taken."""
    parameters = dict(module.named_parameters())
    optimizer.state.clear()
    for name, state in stored["moments"].items():
        tensors = {key: torch.from_numpy(np.array(value)) for key, value in state.items()}
        device = parameters[name].device
        # The step counter stays on the CPU, as torch keeps it.
        optimizer.state[parameters[name]] = {
            key: x if key == "step" else x.to(device) for key, x in tensors.items()
        }
    for group, lr in zip(optimizer.param_groups, stored["lr"], strict=True):
        group["lr"] = lr


def replay_state(buffer: Any) -> dict[str, Any]:
    """Return the filled part of a replay buffer, as views, and where it is written next."""
    size = buffer.size()
    filled = {name: map_tree(lambda x: x[:size], getattr(buffer, name)) for name in _REPLAYED}
    return {**filled, "pos": buffer.pos, "full": buffer.full}


def load_replay_state(buffer: Any, stored: dict[str, Any]) -> None:
    """Continue where `replay_state` was taken."""
    for name in _REPLAYED:
        map_tree(
            lambda x, part: x[: len(part)].__setitem__(..., part),
            getattr(buffer, name),
            stored[name],
        )
    buffer.pos, buffer.full = stored["pos"], stored["full"]
