"""Weight initialisation of policy networks."""

from torch import nn


def orthogonal(layer: nn.Linear | nn.Conv2d, gain: float) -> None:
    """Give `layer` orthogonal weights times `gain` and zero biases (arXiv 2005.12729)."""
    nn.init.orthogonal_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
