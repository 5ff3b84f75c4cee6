"""The policy `attention`: a stack of blocks whose attention sees a long stretch of the episode."""

from typing import Any, ClassVar

from pydantic import Field
from torch import nn

from palaestra.errors import UserError
from palaestra.options import Options
from palaestra.policies.backbone import Backbone
from palaestra.policies.sliding_attention import AttentionMixer, AttentionOptions
from palaestra.policies.stack import Stack, StackConfig, StackPolicy


class AttentionConfig(StackConfig):
    """Options of the transformer."""

    context: int = Field(64, ge=1, description="steps that each layer sees, the present included")


class AttentionPolicy(StackPolicy):
    """A transformer over the last steps of the episode."""

    Config: ClassVar[type[Options]] = AttentionConfig

    def make_mixers(self) -> list[Backbone]:
        """Return attention for every block."""
        c = self.config
        options = AttentionOptions(window=c.context)
        return [AttentionMixer(c.width, c.heads, options) for _ in range(c.layers)]

    def make_backbone(self, in_features: int) -> Stack:
        """Return the stack."""
        stack = super().make_backbone(in_features)
        stack.register_load_state_dict_pre_hook(_refuse_first_version)
        return stack


def _refuse_first_version(
    module: nn.Module, weights: dict[str, Any], prefix: str, *_: object
) -> None:
    """Refuse the weights of this policy's first version by name; its blocks were others."""
    if f"{prefix}blocks.0.qkv.weight" in weights:
        raise UserError(
            "policy 'attention': these weights are of an earlier version of the policy, whose "
            "blocks were others (LayerNorm and a perceptron of one branch); accepted: weights of "
            "the present version. The run has to be trained anew."
        )
