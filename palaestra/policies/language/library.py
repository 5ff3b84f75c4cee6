"""The names of the library `transformers`, an extra, that language models use."""

from dataclasses import fields

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
    "CACHE",
    "AutoConfig",
    "AutoModelForCausalLM",
    "Cache",
    "CausalLMOutputWithPast",
    "GenerationMixin",
    "PreTrainedConfig",
    "PreTrainedModel",
]

_OUTPUTS = {field.name for field in fields(CausalLMOutputWithPast)}

CACHE = "cache" if "cache" in _OUTPUTS else "past_key_values"
"""What the library calls the state that goes from token to token: `cache` since 5.24."""
