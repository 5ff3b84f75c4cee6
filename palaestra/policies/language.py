"""The policies' blocks as a causal language model of the library `transformers`.

    config = PalaestraConfig(vocab_size=512, width=128, layers=["attention", "mesa"])
    model = PalaestraForCausalLM(config)
    model.generate(tokens, max_new_tokens=20)

Importing this module registers both classes with `AutoConfig` and `AutoModelForCausalLM`.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from palaestra.experience.state import State
from palaestra.kernels.gla import lightning_decay
from palaestra.policies.block import Block
from palaestra.policies.gla import GLAMixer
from palaestra.policies.language_cache import RecurrentCache
from palaestra.policies.language_config import PalaestraConfig
from palaestra.policies.language_library import (
    AutoConfig,
    AutoModelForCausalLM,
    CausalLMOutputWithPast,
    GenerationMixin,
    PreTrainedModel,
)
from palaestra.policies.layers import fan_in_linear
from palaestra.policies.mixture import make_mixer
from palaestra.policies.stack import StackState

IGNORED = -100
"""Label of a token that the loss leaves out."""


class PalaestraForCausalLM(PreTrainedModel, GenerationMixin):
    """Next-token logits from a stack of pre-norm blocks.

        x = sqrt(width) E[token];   x = block(x) for each block;   logits = RMSNorm(x) U

    E and U start normal with deviation 1 / sqrt(width); they are one matrix where tied.

    Args:
      config: vocabulary, blocks and options of the mixers.
    """

    config_class = PalaestraConfig
    config: PalaestraConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    _no_split_modules = ["Block"]  # noqa: RUF012  # the library's own type
    _tied_weights_keys = {"lm_head.weight": "embed_tokens.weight"}  # noqa: RUF012
    _is_stateful = True

    def __init__(self, config: PalaestraConfig) -> None:
        super().__init__(config)
        options = config.options()
        mixers = [make_mixer(name, options) for name in options.layers]
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        nn.init.normal_(self.embed_tokens.weight, std=config.width**-0.5)
        gain = len(mixers) ** -0.5
        self.blocks = nn.ModuleList(Block(mixer, gain, options.expansion) for mixer in mixers)
        self.norm = nn.RMSNorm(config.width, 1e-6)
        self.lm_head = fan_in_linear(config.width, config.vocab_size)
        self.loss_type = "ForCausalLM"
        self.post_init()

    def init_weights(self) -> None:
        """Tie the weights; the modules have drawn them."""
        self.tie_weights()

    @torch.no_grad()
    def initialize_weights(self) -> None:
        """Fill what a checkpoint does not hold: constants, and weights that it lacks."""
        for module in self.modules():
            if isinstance(module, GLAMixer):
                module.slopes.copy_(lightning_decay(module.heads))
        lacking = {name for name, p in self.named_parameters() if not _is_loaded(p)}
        lacking -= self.all_tied_weights_keys.keys()
        if lacking:
            fresh = type(self)(self.config).state_dict()
            for name in lacking:
                self.get_parameter(name).copy_(fresh[name])

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Draw the embeddings of a larger vocabulary."""
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.width**-0.5)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def initial_state(self, batch: int) -> StackState:
        """Return the state before the first token of `batch` documents."""
        return StackState(tuple(block.mixer.initial_state(batch) for block in self._blocks()))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: RecurrentCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        reset: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Read T tokens.

        Args:
          input_ids: `[B, T]`.
          attention_mask: `[B, T]`, or with the tokens in the cache before; zeros are padding, to
            the left or to the right of the document.
          position_ids: `[B, T]`; they only tell where documents begin, at position 0.
          past_key_values: the state to go on from; it is changed in place.
          inputs_embeds: `[B, T, width]` instead of `input_ids`.
          labels: `[B, T]`, compared with the logits one token earlier; -100 is left out, and so is
            the first token of every document.
          use_cache: whether to return the state; None is the configuration's, and no in training.
          reset: bool `[B, T]`, true where a document begins.
          output_hidden_states: whether to return the input of every block, and the last output.
          return_dict: whether to return an object (default) or a tuple.
          logits_to_keep: number of last tokens to return logits of, or their indices; 0 is all.
          **kwargs: go to the loss.

        Raises:
          ValueError: tokens and embeddings both or neither, a mask with a gap, a cache of another
            kind, a shape that does not fit, or autocast.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("exactly one of input_ids and inputs_embeds has to be given")
        if past_key_values is not None and not isinstance(past_key_values, RecurrentCache):
            given = type(past_key_values).__name__
            raise ValueError(f"past_key_values: a RecurrentCache is accepted, not a {given}")
        if torch.is_autocast_enabled(self.device.type):
            raise ValueError("autocast is not supported: convert the model to the type instead")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        B, T, width = inputs_embeds.shape
        starts = _starts(B, T, inputs_embeds.device, attention_mask, position_ids, reset)
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        cache = past_key_values
        state = self.initial_state(B) if cache is None or cache.state is None else cache.state

        x, state, hidden = self._read(width**0.5 * inputs_embeds, cast(StackState, state), starts)
        if use_cache:
            cache = RecurrentCache() if cache is None else cache
            cache.advance(state, T)

        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(x[:, keep])
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        states: Any = (*hidden, x) if output_hidden_states else None  # typed FloatTensor there
        output = CausalLMOutputWithPast(
            loss=None if labels is None else self._loss(logits, labels, starts, **kwargs),
            logits=logits,
            past_key_values=cache if use_cache else None,
            hidden_states=states,
        )
        return output if return_dict is not False else output.to_tuple()

    def _loss(self, logits: Tensor, labels: Tensor, starts: Tensor, **kwargs: Any) -> Any:
        """Return the library's loss, without the tokens that begin a document."""
        labels = labels.masked_fill(starts, IGNORED)
        vocab_size = self.config.vocab_size
        return self.loss_function(logits=logits, labels=labels, vocab_size=vocab_size, **kwargs)

    def prepare_inputs_for_generation(
        self,
        input_ids: Any,
        next_sequence_length: int | None = None,
        past_key_values: Any = None,
        attention_mask: Any = None,
        inputs_embeds: Any = None,
        is_first_iteration: bool | None = False,
        reset: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the arguments of the next `forward`.

        `reset` is that of the prompt, with the tokens that are in the cache already.

        Raises:
          ValueError: a prompt that is padded to the right, or a `reset` shorter than it.
        """
        if is_first_iteration and attention_mask is not None and not attention_mask[:, -1].all():
            raise ValueError("attention_mask: a prompt has to be padded to the left")
        base: Any = super()
        inputs = base.prepare_inputs_for_generation(
            input_ids,
            next_sequence_length=next_sequence_length,
            past_key_values=past_key_values,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        if reset is not None:
            tokens = inputs.get("input_ids")
            T = (inputs["inputs_embeds"] if tokens is None else tokens).shape[1]
            begin = 0 if past_key_values is None else past_key_values.length
            if is_first_iteration and reset.shape[1] < begin + T:
                raise ValueError(
                    f"reset: {[len(reset), begin + T]} is accepted, the tokens in the cache "
                    f"included, not {list(reset.shape)}"
                )
            missing = max(0, begin + T - reset.shape[1])
            inputs["reset"] = pad(reset, (0, missing))[:, begin : begin + T]
        return inputs

    def _read(
        self, x: Tensor, state: StackState, reset: Tensor
    ) -> tuple[Tensor, StackState, list[Tensor]]:
        """Return the normed output, the state, and the input of every block."""
        single = x.shape[1] == 1
        if single:
            x, reset = x.squeeze(1), reset.squeeze(1)
        hidden, new = [], list[State]()
        for block, layer in zip(self._blocks(), state.layers, strict=True):
            hidden.append(x)
            x, layer = block.step(x, layer, reset) if single else block(x, layer, reset)
            new.append(layer)
        x = self.norm(x)
        if single:
            x, hidden = x.unsqueeze(1), [h.unsqueeze(1) for h in hidden]
        return x, StackState(tuple(new)), hidden

    def _blocks(self) -> list[Block]:
        return cast(list[Block], list(self.blocks))


def _starts(
    B: int,
    T: int,
    device: torch.device,
    attention_mask: Tensor | None,
    position_ids: Tensor | None,
    reset: Tensor | None,
) -> Tensor:
    """Return bool `[B, T]`, true where a document begins."""
    starts = torch.zeros(B, T, dtype=torch.bool, device=device)
    if reset is not None:
        if reset.shape != (B, T) or reset.dtype != torch.bool:
            raise ValueError(f"reset: bool {[B, T]} is accepted, not {list(reset.shape)}")
        starts = starts | reset
    if position_ids is not None:
        starts = starts | (position_ids == 0)
    if attention_mask is not None:
        if attention_mask.ndim != 2 or len(attention_mask) != B or attention_mask.shape[1] < T:
            raise ValueError(
                f"attention_mask: {[B, T]} or longer is accepted, not {list(attention_mask.shape)}"
            )
        real = attention_mask.bool()
        begins = real & ~pad(real, (1, 0), value=True)[:, :-1]
        # Not at every token of a generation, because this waits for the device.
        if T > 1 and (begins.sum(1) + real[:, 0] > 1).any():
            raise ValueError("attention_mask: padding between tokens of a row is not accepted")
        starts = starts | begins[:, -T:]
    return starts


def _is_loaded(parameter: Tensor) -> bool:
    return getattr(parameter, "_is_hf_initialized", False)


AutoConfig.register(PalaestraConfig.model_type, PalaestraConfig, exist_ok=True)
AutoModelForCausalLM.register(PalaestraConfig, PalaestraForCausalLM, exist_ok=True)
