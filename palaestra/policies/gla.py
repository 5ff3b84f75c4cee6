"""Gated linear attention (arXiv 2312.06635) and its relatives, as a mixer and as a policy."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, silu

from palaestra.experience.state import State
from palaestra.kernels.gla import chunk_gla, empty_state, lightning_decay, step_gla
from palaestra.options import Options
from palaestra.policies.backbone import Backbone
from palaestra.policies.convolution import ShortConvolution
from palaestra.policies.layers import fan_in_linear, project
from palaestra.policies.stack import StackConfig, StackPolicy

RANK = 16
"""Rank of the map from the input to the decays."""


@dataclass
class GLAState(State):
    """The decayed sum of k v^T over the episode."""

    s: Tensor
    """`[B, H, K, V]`, float32 at least."""


@dataclass
class ConvolvedGLAState(GLAState):
    """The sum and the last inputs of the convolution."""

    conv: Tensor
    """`[B, 3, 3 * width]`: three steps."""


class GLAOptions(Options):
    """Options of gated linear attention."""

    decay: Literal["channel", "head", "lightning", "none"] = Field(
        "channel",
        description="what forgets: a gate for each key channel, one for each head, a constant for "
        "each head, or nothing",
    )
    gate_temperature: float = Field(
        16.0, gt=0, description="divides the logarithm of a gate: larger forgets more slowly"
    )
    convolution: bool = Field(
        False, description="convolve queries, keys and values over 4 steps, then silu"
    )


class ForgetGate(nn.Module):
    """`g = log sigmoid(x W_1 W_2 + b) / temperature`, the logarithm of a decay.

    Args:
      width: of the input.
      size: number of decays.
      temperature: larger forgets more slowly.
    """

    def __init__(self, width: int, size: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.down = fan_in_linear(width, RANK)
        self.up = nn.Linear(RANK, size)
        nn.init.normal_(self.up.weight, std=RANK**-0.5)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., width]` -> `[..., size]`."""
        return logsigmoid(project(self.up, self.down(x))) / self.temperature


class GLAMixer(Backbone):
    """A sum of k v^T over the episode, which decays and is read by the query.

        [q|k|v|z] = x W;   y = RMSNorm(GLA(q, k, v, g)) * silu(z)               norm within heads

    With a convolution, `[q|k|v] = silu(conv(x W))`.

    Args:
      width: of input and output.
      heads: number of heads.
      options: what forgets, and whether neighbours mix first. "channel" is GLA; "head" is also
        known as simple GLA; "lightning" has the constants of Lightning Attention-2
        (arXiv 2401.04658); "none" is linear attention (arXiv 2006.16236).
    """

    def __init__(self, width: int, heads: int, options: GLAOptions) -> None:
        super().__init__()
        self.in_features = self.out_features = width
        self.heads, self.decay = heads, options.decay
        self.qkvz = fan_in_linear(width, 4 * width)
        self.conv = ShortConvolution(3 * width) if options.convolution else None
        self.gate: ForgetGate | None = None
        if options.decay in ("channel", "head"):
            size = width if options.decay == "channel" else heads
            self.gate = ForgetGate(width, size, options.gate_temperature)
        self.slopes: Tensor
        self.register_buffer("slopes", lightning_decay(heads), persistent=False)
        self.norm = nn.RMSNorm(width // heads, 1e-5)

    def initial_state(self, batch: int) -> GLAState:
        """Return zeros."""
        d = self.in_features // self.heads
        like = self.qkvz.weight.detach()
        s = empty_state(batch, self.heads, d, d, like=like)
        if self.conv is None:
            return GLAState(s)
        return ConvolvedGLAState(s, self.conv.initial_cache(batch))

    def forward(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, GLAState]:
        """Read a window; see `Backbone.forward`."""
        assert isinstance(state, GLAState)
        qkv, z = self._project(x)
        if self.conv is not None:
            assert isinstance(state, ConvolvedGLAState)
            qkv, cache = self.conv(qkv, state.conv, reset)
            qkv, state = silu(qkv), replace(state, conv=cache)
        q, k, v = self._split(qkv)
        g = self._log_decay(x)
        o, s = chunk_gla(q, k, v, g, reset=reset, initial_state=state.s, output_final_state=True)
        assert s is not None
        return self._gated(o, z), replace(state, s=s)

    def step(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, GLAState]:
        """Read one step; see `Backbone.step`."""
        assert isinstance(state, GLAState)
        qkv, z = self._project(x)
        if self.conv is not None:
            assert isinstance(state, ConvolvedGLAState)
            qkv, cache = self.conv.step(qkv, state.conv, reset)
            qkv, state = silu(qkv), replace(state, conv=cache)
        q, k, v = self._split(qkv)
        o, s = step_gla(q, k, v, self._log_decay(x), state.s, reset=reset)
        return self._gated(o, z), replace(state, s=s)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries, keys and values side by side, `[..., 3 * width]`, and z."""
        qkv, z = project(self.qkvz, x).split([3 * self.in_features, self.in_features], -1)
        return qkv, z

    def _split(self, qkv: Tensor) -> list[Tensor]:
        """Return q, k and v, each `[..., H, D]`."""
        return [part.unflatten(-1, (self.heads, -1)) for part in qkv.chunk(3, -1)]

    def _log_decay(self, x: Tensor) -> Tensor | None:
        """Return g `[..., H, K]` or `[..., H]`, or None."""
        if self.gate is not None:
            g: Tensor = self.gate(x)
            return g.unflatten(-1, (self.heads, -1)) if self.decay == "channel" else g
        return None if self.decay == "none" else self.slopes.expand(*x.shape[:-1], -1)

    def _gated(self, o: Tensor, z: Tensor) -> Tensor:
        return self.norm(o).flatten(-2) * silu(z)


class GLAConfig(StackConfig, GLAOptions):
    """Options of gated linear attention in every block."""


class GLAPolicy(StackPolicy):
    """Gated linear attention in every block."""

    Config: ClassVar[type[Options]] = GLAConfig

    def make_mixers(self) -> list[Backbone]:
        """Return gated linear attention for every block."""
        c = self.config
        return [GLAMixer(c.width, c.heads, c) for _ in range(c.layers)]
