"""Mesa (arXiv 2506.05233): every step solves a ridge regression on the episode so far."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, silu, softplus

from palaestra.experience.state import State
from palaestra.kernels.mesa import MesaState, chunk_mesa, empty_state, step_mesa
from palaestra.options import Options
from palaestra.policies.backbone import Backbone
from palaestra.policies.convolution import ShortConvolution
from palaestra.policies.layers import chrono_bias, fan_in_linear, l2norm, project
from palaestra.policies.stack import StackConfig, StackPolicy

LAMB_FLOOR = 0.25
"""Least ridge; it bounds the condition of the regression."""

HORIZON = 128
"""Steps that the forget gates are spread over at first."""


@dataclass
class MesaLayerState(State):
    """The regression's sums and the convolution's inputs."""

    sums: MesaState
    conv: Tensor
    """`[B, 3, 2 * width]`."""


class MesaOptions(Options):
    """Options of Mesa."""

    solver_steps: int = Field(
        30, ge=0, description="steps of conjugate gradients at most; fewer cost less"
    )


class MesaMixer(Backbone):
    """Answers a query by the linear map that best fits the episode's keys to its values.

        q, k = unit length of silu(conv(x W));   v = x W_v;   beta = sigmoid(x W_b + b_b)
        g = log sigmoid(x W_g + b_g);   lamb = 0.25 + softplus(l), at first 1
        y = RMSNorm(mesa(q, k, v, g, beta, lamb))

    Forget gates start with chrono biases (arXiv 1804.11188).

    Args:
      width: of input and output.
      heads: number of heads.
      options: the solver's steps.
    """

    def __init__(self, width: int, heads: int, options: MesaOptions) -> None:
        super().__init__()
        self.in_features = self.out_features = width
        self.heads, head_width = heads, width // heads
        self.solver_steps = options.solver_steps
        self.qkv = fan_in_linear(width, 3 * width)
        self.conv = ShortConvolution(2 * width)
        self.gates = fan_in_linear(width, 2 * heads)
        self.gate_bias = nn.Parameter(torch.cat([torch.zeros(heads), chrono_bias(heads, HORIZON)]))
        inverse_softplus = torch.tensor(1 - LAMB_FLOOR).expm1().log()
        self.lamb = nn.Parameter(inverse_softplus.repeat(heads, head_width))
        self.norm = nn.RMSNorm(head_width, 1e-5)

    def initial_state(self, batch: int) -> MesaLayerState:
        """Return zeros."""
        d = self.in_features // self.heads
        sums = empty_state(batch, self.heads, d, d, like=self.lamb.detach())
        return MesaLayerState(sums, self.conv.initial_cache(batch))

    def forward(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, MesaLayerState]:
        """Read a window; see `Backbone.forward`."""
        assert isinstance(state, MesaLayerState)
        qk, v = self._project(x)
        qk, cache = self.conv(qk, state.conv, reset)
        q, k, v, g, beta, lamb = self._arguments(x, qk, v)
        o, sums = chunk_mesa(
            q,
            k,
            v,
            g,
            beta,
            lamb,
            num_steps=self.solver_steps,
            reset=reset,
            initial_state=state.sums,
            output_final_state=True,
        )
        assert sums is not None
        return self.norm(o).flatten(-2), MesaLayerState(sums, cache)

    def step(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, MesaLayerState]:
        """Read one step; see `Backbone.step`."""
        assert isinstance(state, MesaLayerState)
        qk, v = self._project(x)
        qk, cache = self.conv.step(qk, state.conv, reset)
        q, k, v, g, beta, lamb = self._arguments(x, qk, v)
        o, sums = step_mesa(
            q, k, v, g, beta, lamb, state.sums, num_steps=self.solver_steps, reset=reset
        )
        return self.norm(o).flatten(-2), MesaLayerState(sums, cache)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(project(self.qkv, x).split([2 * self.in_features, self.in_features], -1))

    def _arguments(self, x: Tensor, qk: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        """Return q, k, v, g, beta and lamb."""
        q, k = l2norm(silu(qk).unflatten(-1, (2, self.heads, -1))).unbind(-3)
        beta, gamma = (project(self.gates, x) + self.gate_bias).chunk(2, -1)
        lamb = LAMB_FLOOR + softplus(self.lamb)
        v = v.unflatten(-1, (self.heads, -1))
        return q, k, v, logsigmoid(gamma), beta.sigmoid(), lamb


class MesaConfig(StackConfig, MesaOptions):
    """Options of Mesa in every block."""


class MesaPolicy(StackPolicy):
    """Mesa in every block."""

    Config: ClassVar[type[Options]] = MesaConfig

    def make_mixers(self) -> list[Backbone]:
        """Return Mesa for every block."""
        c = self.config
        return [MesaMixer(c.width, c.heads, c) for _ in range(c.layers)]
