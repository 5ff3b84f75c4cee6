"""The configuration of a language model made of the policies' blocks."""

from typing import Any, ClassVar

from pydantic import Field, model_validator

from palaestra.options import validate
from palaestra.policies.language.library import PreTrainedConfig
from palaestra.policies.mixture import MixtureConfig


class LanguageOptions(MixtureConfig):
    """What `PalaestraConfig` accepts: a mixture and a vocabulary."""

    vocab_size: int = Field(256, ge=1, description="number of tokens")
    tie_word_embeddings: bool = Field(False, description="read and write tokens by one matrix")
    use_cache: bool = Field(True, description="return the state where nothing else is asked")
    bos_token_id: int | None = Field(None, ge=0, description="token that begins a document")
    eos_token_id: int | list[int] | None = Field(None, description="tokens that end one")
    pad_token_id: int | None = Field(None, ge=0, description="token that fills up rows")

    @model_validator(mode="after")
    def _tokens_exist(self) -> "LanguageOptions":
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            value = getattr(self, name)
            for token in value if isinstance(value, list) else [value]:
                if token is not None and not 0 <= token < self.vocab_size:
                    raise ValueError(f"{name} has to be below vocab_size = {self.vocab_size}")
        return self


class PalaestraConfig(PreTrainedConfig):
    """Tokens, blocks and the options of each kind of mixer, as JSON holds them.

    Args:
      vocab_size: number of tokens.
      width: of the residual stream, a multiple of 2 * heads.
      heads: of each layer.
      expansion: width of each block's perceptron / width.
      layers: mixer of each block, first to last, by the names that the policy "mixture" has.
      attention, rat, mesa, gla, delta: options of a kind of mixer, in every block of that kind.
      tie_word_embeddings: read and write tokens by one matrix.
      use_cache: whether `forward` returns the state where it is not told, outside of training.
      bos_token_id, eos_token_id, pad_token_id: special tokens, for generation.

    Raises:
      UserError: a value that is not accepted; the message names its field.
    """

    model_type = "palaestra"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values", "cache"]
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "width",
        "num_attention_heads": "heads",
    }

    vocab_size: int = 256
    width: int = 64
    heads: int = 4
    expansion: int = 3
    layers: list[str] | tuple[str, ...] = ("attention", "rat")
    attention: dict[str, Any] | None = None
    rat: dict[str, Any] | None = None
    mesa: dict[str, Any] | None = None
    gla: dict[str, Any] | None = None
    delta: dict[str, Any] | None = None
    tie_word_embeddings: bool = False
    use_cache: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        checked = self.options().model_dump(mode="json", exclude={"separate_critic"})
        for name, value in checked.items():
            setattr(self, name, value)

    @property
    def num_hidden_layers(self) -> int:
        """Return the number of blocks."""
        return len(self.layers)

    def options(self) -> LanguageOptions:
        """Return the checked options.

        Raises:
          UserError: a value that is not accepted.
        """
        names = set(LanguageOptions.model_fields) - {"separate_critic"}
        given = {name: getattr(self, name) for name in names}
        return validate(LanguageOptions, {k: v for k, v in given.items() if v is not None})
