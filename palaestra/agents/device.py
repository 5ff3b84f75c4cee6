"""Where networks live: the device that a configuration names, and how tensors get there."""

import re

import torch
from torch import Tensor

from palaestra.errors import UserError


def resolve_device(name: str) -> str:
    """Return the device of a run as torch names it: "cpu", "cuda" or "cuda:1".

    Args:
      name: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N".

    Raises:
      UserError: another name, or a GPU that this machine does not have.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return name
    if not re.fullmatch(r"cuda(:\d+)?", name):
        raise UserError(
            f"device: {name!r} is not accepted: 'auto', 'cpu', 'cuda' and 'cuda:N' are."
        )
    count = torch.cuda.device_count()
    if count == 0:
        raise UserError(
            f"device: {name!r} is not accepted: torch {torch.__version__} finds no GPU here; "
            "'cpu' and 'auto' are accepted."
        )
    if int(name.partition(":")[2] or 0) >= count:
        raise UserError(
            f"device: {name!r} is not accepted: 'auto', 'cpu', 'cuda' and 'cuda:0' to "
            f"'cuda:{count - 1}' are."
        )
    return name


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return `tensor` on `device`; the copy to a GPU runs beside what the CPU does next."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        # Only from pinned memory does the copy not wait.
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
