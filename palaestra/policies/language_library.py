"""The names of the library `transformers`, an extra, that language models use."""

from palaestra.errors import UserError

try:
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        GenerationMixin,
        PreTrainedConfig,
        PreTrainedModel,
    )
    from transformers.cache_utils import Cache
    from transformers.modeling_outputs import CausalLMOutputWithPast
except ImportError as error:
    raise UserError(
        f"language models need transformers ({error}): pip install 'palaestra[llm]'"
    ) from error

__all__ = [
    "AutoConfig",
    "AutoModelForCausalLM",
    "Cache",
    "CausalLMOutputWithPast",
    "GenerationMixin",
    "PreTrainedConfig",
    "PreTrainedModel",
]
