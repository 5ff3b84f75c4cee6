"""Blocks of freely chosen mixers on top of each other."""

from typing import ClassVar, Literal

from pydantic import Field

from palaestra.options import Options
from palaestra.policies.backbone import Backbone
from palaestra.policies.delta import DeltaMixer, DeltaOptions
from palaestra.policies.gla import GLAMixer, GLAOptions
from palaestra.policies.gru import GRU
from palaestra.policies.lstm import LSTM
from palaestra.policies.mesa import MesaMixer, MesaOptions
from palaestra.policies.rat import RATMixer, RATOptions
from palaestra.policies.sliding_attention import AttentionMixer, AttentionOptions
from palaestra.policies.stack import BlockConfig, StackPolicy

MixerName = Literal["attention", "rat", "mesa", "gla", "deltanet", "gated-deltanet", "gru", "lstm"]


class MixtureConfig(BlockConfig):
    """Options of a mixture: the blocks, and the options of each kind of mixer."""

    layers: tuple[MixerName, ...] = Field(
        ("attention", "rat"), min_length=1, description="mixer of each block, first to last"
    )
    attention: AttentionOptions = Field(AttentionOptions(), description="of local attention")
    rat: RATOptions = Field(RATOptions(), description="of RAT")
    mesa: MesaOptions = Field(MesaOptions(), description="of Mesa")
    gla: GLAOptions = Field(GLAOptions(), description="of gated linear attention")
    delta: DeltaOptions = Field(DeltaOptions(), description="of deltanet and gated-deltanet")


class MixturePolicy(StackPolicy):
    """A mixer of its own in every block."""

    Config: ClassVar[type[Options]] = MixtureConfig

    def make_mixers(self) -> list[Backbone]:
        """Return the mixers that `layers` names."""
        return [make_mixer(name, self.config) for name in self.config.layers]


def make_mixer(name: MixerName, config: MixtureConfig) -> Backbone:
    """Return a new mixer by name."""
    width, heads = config.width, config.heads
    match name:
        case "attention":
            return AttentionMixer(width, heads, config.attention)
        case "rat":
            return RATMixer(width, heads, config.rat)
        case "mesa":
            return MesaMixer(width, heads, config.mesa)
        case "gla":
            return GLAMixer(width, heads, config.gla)
        case "deltanet":
            return DeltaMixer(width, heads, config.delta, gated=False)
        case "gated-deltanet":
            return DeltaMixer(width, heads, config.delta, gated=True)
        case "gru":
            return GRU(width, width, 1)
        case "lstm":
            return LSTM(width, width, 1)
