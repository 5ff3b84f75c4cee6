"""RAT (arXiv 2507.04416): recurrence inside a chunk, attention to finished chunks.

RAT-SWA alternates it with attention over a sliding window.
"""

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from palaestra.experience.state import State
from palaestra.kernels.rat import RatState, chunk_rat, empty_state, step_rat
from palaestra.options import Options
from palaestra.policies.backbone import Backbone
from palaestra.policies.layers import chrono_bias, project
from palaestra.policies.sliding_attention import AttentionMixer, AttentionOptions
from palaestra.policies.stack import StackConfig, StackPolicy


class RATOptions(Options):
    """Options of RAT."""

    chunk: int = Field(16, ge=1, description="steps of a chunk, counted from the episode's start")
    context: int = Field(
        256, ge=1, description="steps that RAT sees; as many chunks as hold them are kept"
    )


class RATMixer(Backbone):
    """Keys and values averaged by a gate within a chunk; attention to the averages of all chunks.

        [z|v|g|q|k] = x W;   g = sigmoid(g + b)
        y = sigmoid(z) * RAT(q, k, v, g)

    Two queries and keys are shared by all heads in turn, which pays for the gates; one where the
    number of heads is odd. Weights start with the paper's deviation of 0.02, the gates with chrono
    biases (arXiv 1804.11188) for a chunk.

    Args:
      width: of input and output.
      heads: number of heads.
      options: chunk length and context.
    """

    def __init__(self, width: int, heads: int, options: RATOptions) -> None:
        super().__init__()
        self.in_features = self.out_features = width
        self.heads, groups = heads, 1 if heads % 2 else 2
        self.chunk = options.chunk
        self.capacity = -(-options.context // options.chunk)
        self._heads = [heads] * 3 + [groups] * 2
        self.proj = nn.Linear(width, sum(self._heads) * width // heads, bias=False)
        nn.init.normal_(self.proj.weight, std=0.02)
        self.gate_bias = nn.Parameter(chrono_bias(width, options.chunk))

    def initial_state(self, batch: int) -> RatState:
        """Return an empty buffer and zeros."""
        d, like = self.in_features // self.heads, self.gate_bias.detach()
        return empty_state(batch, self.heads, self.capacity, d, like=like)

    def forward(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, RatState]:
        """Read a window; see `Backbone.forward`."""
        assert isinstance(state, RatState)
        z, v, g, q, k = self._project(x)
        o, new = chunk_rat(
            q,
            k,
            v,
            g,
            chunk_length=self.chunk,
            reset=reset,
            initial_state=state,
            output_final_state=True,
        )
        assert new is not None
        return (z * o).flatten(-2), new

    def step(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, RatState]:
        """Read one step; see `Backbone.step`."""
        assert isinstance(state, RatState)
        z, v, g, q, k = self._project(x)
        o, new = step_rat(q, k, v, g, state, chunk_length=self.chunk, reset=reset)
        return (z * o).flatten(-2), new

    def _project(self, x: Tensor) -> list[Tensor]:
        """Return z, v, g `[..., H, D]` and q, k `[..., G, D]`."""
        y, d = project(self.proj, x), self.in_features // self.heads
        z, v, g, q, k = y.view(*y.shape[:-1], -1, d).split(self._heads, -2)
        return [z.sigmoid(), v, (g + self.gate_bias.view(-1, d)).sigmoid(), q, k]


class RATConfig(StackConfig, RATOptions):
    """Options of RAT in every block."""


class RATPolicy(StackPolicy):
    """RAT in every block."""

    Config: ClassVar[type[Options]] = RATConfig

    def make_mixers(self) -> list[Backbone]:
        """Return RAT for every block."""
        c = self.config
        return [RATMixer(c.width, c.heads, c) for _ in range(c.layers)]


class RATSWAConfig(StackConfig, RATOptions, AttentionOptions):
    """Options of local attention and RAT in turn."""


class RATSWAPolicy(StackPolicy):
    """Local attention, then RAT, in turn."""

    Config: ClassVar[type[Options]] = RATSWAConfig

    def make_mixers(self) -> list[Backbone]:
        """Return local attention for even blocks, RAT for odd ones."""
        c = self.config
        kinds = (AttentionMixer, RATMixer)
        return [kinds[i % 2](c.width, c.heads, c) for i in range(c.layers)]
