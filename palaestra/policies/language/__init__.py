"""The policies' blocks as a causal language model of the library `transformers`.

    config = PalaestraConfig(vocab_size=512, width=128, layers=["attention", "mesa"])
    model = PalaestraForCausalLM(config)
    model.generate(tokens, max_new_tokens=20)

Importing this package registers both classes with `AutoConfig` and `AutoModelForCausalLM`.
"""

from palaestra.policies.language.cache import RecurrentCache
from palaestra.policies.language.config import PalaestraConfig
from palaestra.policies.language.library import AutoConfig, AutoModelForCausalLM
from palaestra.policies.language.model import IGNORED, PalaestraForCausalLM

__all__ = ["IGNORED", "PalaestraConfig", "PalaestraForCausalLM", "RecurrentCache"]

AutoConfig.register(PalaestraConfig.model_type, PalaestraConfig, exist_ok=True)
AutoModelForCausalLM.register(PalaestraConfig, PalaestraForCausalLM, exist_ok=True)
