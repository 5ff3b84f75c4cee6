"""The delta rule: DeltaNet (arXiv 2406.06484) and Gated DeltaNet (arXiv 2412.06464)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from palaestra.experience.state import State
from palaestra.kernels.delta import chunk_delta, empty_state, step_delta
from palaestra.options import Options
from palaestra.policies.backbone import Backbone
from palaestra.policies.convolution import ShortConvolution
from palaestra.policies.layers import fan_in_linear, l2norm, project
from palaestra.policies.stack import StackConfig, StackPolicy


@dataclass
class DeltaState(State):
    """The map from keys to values that the episode has taught, and the convolution's inputs."""

    s: Tensor
    """`[B, H, K, V]`, float32 at least."""
    conv: Tensor
    """`[B, 3, 3 * width]`: three steps."""


class DeltaOptions(Options):
    """Options of the delta rule."""

    negative_eigenvalues: bool = Field(
        False,
        description="let beta reach 2, so that a step can also invert what is stored (2411.12537)",
    )


class DecayGate(nn.Module):
    """`g = -A softplus(x W + b)`, the logarithm of each head's decay, as in Mamba 2.

    A starts uniform in (0, 1), the softplus log-uniform in [0.001, 0.1]: a head then forgets half
    in seven to thousands of steps. Mamba 2's A up to 16 makes most forget it within ten, which
    many heads can afford and few cannot.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.linear = fan_in_linear(width, heads)
        A = torch.rand(heads)
        dt = torch.empty(heads).uniform_(math.log(1e-3), math.log(0.1)).exp()
        self.A_log = nn.Parameter(A.clamp(min=1e-4).log())
        self.dt_bias = nn.Parameter(dt + (-torch.expm1(-dt)).log())  # inverse of softplus

    def forward(self, x: Tensor) -> Tensor:
        """`[..., width]` -> `[..., heads]`."""
        return -self.A_log.exp() * softplus(project(self.linear, x) + self.dt_bias)


class DeltaMixer(Backbone):
    """Memory that a step corrects towards its value, by the error of what its key recalls.

        q, k, v = silu(conv(x W));   q, k of unit length;   beta = sigmoid(x W_b)
        y = RMSNorm(delta(q, k, v, beta, g))                    times silu(x W_z) where gated

    Args:
      width: of input and output.
      heads: number of heads.
      options: the range of beta.
      gated: decay the memory, and gate the output.
    """

    def __init__(self, width: int, heads: int, options: DeltaOptions, *, gated: bool) -> None:
        super().__init__()
        self.in_features = self.out_features = width
        self.heads = heads
        self.beta_max = 2.0 if options.negative_eigenvalues else 1.0
        self.qkv = fan_in_linear(width, 3 * width)
        self.conv = ShortConvolution(3 * width)
        self.beta = fan_in_linear(width, heads)
        self.decay = DecayGate(width, heads) if gated else None
        self.gate = fan_in_linear(width, width) if gated else None
        self.norm = nn.RMSNorm(width // heads, 1e-5)

    def initial_state(self, batch: int) -> DeltaState:
        """Return zeros."""
        d = self.in_features // self.heads
        s = empty_state(batch, self.heads, d, d, like=self.beta.weight.detach())
        return DeltaState(s, self.conv.initial_cache(batch))

    def forward(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, DeltaState]:
        """Read a window; see `Backbone.forward`."""
        assert isinstance(state, DeltaState)
        mixed, cache = self.conv(project(self.qkv, x), state.conv, reset)
        q, k, v, beta, g = self._arguments(x, mixed)
        o, s = chunk_delta(
            q, k, v, beta, g, reset=reset, initial_state=state.s, output_final_state=True
        )
        assert s is not None
        return self._output(x, o), DeltaState(s, cache)

    def step(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, DeltaState]:
        """Read one step; see `Backbone.step`."""
        assert isinstance(state, DeltaState)
        mixed, cache = self.conv.step(project(self.qkv, x), state.conv, reset)
        q, k, v, beta, g = self._arguments(x, mixed)
        o, s = step_delta(q, k, v, beta, g, state.s, reset=reset)
        return self._output(x, o), DeltaState(s, cache)

    def _arguments(
        self, x: Tensor, mixed: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        """Return q, k, v, beta and g."""
        q, k, v = silu(mixed).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        beta = self.beta_max * project(self.beta, x).sigmoid()
        return l2norm(q), l2norm(k), v, beta, None if self.decay is None else self.decay(x)

    def _output(self, x: Tensor, o: Tensor) -> Tensor:
        y = self.norm(o).flatten(-2)
        return y if self.gate is None else y * silu(project(self.gate, x))


class DeltaConfig(StackConfig, DeltaOptions):
    """Options of the delta rule in every block."""


class DeltaNetPolicy(StackPolicy):
    """The delta rule in every block."""

    Config: ClassVar[type[Options]] = DeltaConfig
    gated: ClassVar[bool] = False

    def make_mixers(self) -> list[Backbone]:
        """Return the delta rule for every block."""
        c = self.config
        return [DeltaMixer(c.width, c.heads, c, gated=self.gated) for _ in range(c.layers)]


class GatedDeltaNetPolicy(DeltaNetPolicy):
    """The delta rule with decay in every block."""

    gated: ClassVar[bool] = True
