"""One layer of a backbone: a mixer over time and a perceptron over features."""

from torch import Tensor, nn

from palaestra.experience.state import State
from palaestra.policies.backbone import Backbone
from palaestra.policies.layers import SwiGLU, fan_in_linear


class Block(nn.Module):
    """Pre-norm residual block (arXiv 2002.04745): `x += mix(norm x) W_out;  x += mlp(norm x)`.

    Args:
      mixer: a backbone whose input and output are as wide as the residual stream.
      gain: factor of the initial weights of what is added to the residual stream.
      expansion: width of the perceptron, as a multiple of the mixer's.
    """

    def __init__(self, mixer: Backbone, gain: float, expansion: int = 3) -> None:
        super().__init__()
        width = mixer.in_features
        self.norm_1, self.norm_2 = nn.RMSNorm(width, 1e-6), nn.RMSNorm(width, 1e-6)
        self.mixer = mixer
        self.out = fan_in_linear(mixer.out_features, width, gain)
        self.mlp = SwiGLU(width, expansion * width, gain)

    def forward(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, State]:
        """Read a window; see `Backbone.forward`."""
        y, state = self.mixer(self.norm_1(x), state, reset)
        return self._add(x, y), state

    def step(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, State]:
        """Read one step; see `Backbone.step`."""
        y, state = self.mixer.step(self.norm_1(x), state, reset)
        return self._add(x, y), state

    def _add(self, x: Tensor, y: Tensor) -> Tensor:
        x = x + self.out(y)
        return x + self.mlp(self.norm_2(x))
