"""What the memory layers are made of: perceptron, norm, initial weights."""

import torch
from torch import Tensor, nn
from torch.nn.functional import silu


def fan_in_linear(in_features: int, out_features: int, gain: float = 1.0) -> nn.Linear:
    """Return a linear layer without bias; weights are normal with deviation gain / sqrt(inputs)."""
    linear = nn.Linear(in_features, out_features, bias=False)
    nn.init.normal_(linear.weight, std=gain * in_features**-0.5)
    return linear


def project(layer: nn.Linear, x: Tensor) -> Tensor:
    """Return `layer(x)` in the type of the layer's weights.

    Under autocast the product alone is computed in a shorter type: what is added up over layers,
    carried over time or handed to an operator is not.
    """
    result: Tensor = layer(x).to(layer.weight.dtype)
    return result


class SwiGLU(nn.Module):
    """`(silu(x W_gate) * x W_up) W_down` (arXiv 2002.05202), without biases.

    Args:
      width: of input and output.
      hidden: of the product.
      gain: factor of the output's initial weights.
    """

    def __init__(self, width: int, hidden: int, gain: float = 1.0) -> None:
        super().__init__()
        self.gate_up = fan_in_linear(width, 2 * hidden)
        self.down = fan_in_linear(hidden, width, gain)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., width]` -> `[..., width]`."""
        gate, up = self.gate_up(x).chunk(2, -1)
        result: Tensor = self.down(silu(gate) * up)
        return result


def chrono_bias(size: int, horizon: int) -> Tensor:
    """Return biases of forget gates that remember 1 to `horizon` steps (arXiv 1804.11188).

    They are log U(1, horizon - 1); zeros for a horizon of 1 or 2.
    """
    return torch.empty(size).uniform_(1, max(1, horizon - 1)).log()


def l2norm(x: Tensor) -> Tensor:
    """Return `x` with unit length along the last dimension; 1e-6 is added to its square."""
    return x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt()
