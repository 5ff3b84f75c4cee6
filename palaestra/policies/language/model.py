"""The language model: embeddings, the policies' blocks, next-token logits."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from palaestra.experience.state import State
from palaestra.kernels.gla import lightning_decay
from palaestra.policies.block import Block
from palaestra.policies.gla import GLAMixer
from palaestra.policies.language.cache import RecurrentCache
from palaestra.policies.language.config import PalaestraConfig
from palaestra.policies.language.library import (
    CACHE,
    CausalLMOutputWithPast,
    GenerationMixin,
    PreTrainedModel,
)
from palaestra.policies.layers import fan_in_linear
from palaestra.policies.mixture import make_mixer
from palaestra.policies.stack import StackState

IGNORED = -100
"""Label of a token that the loss leaves out."""

_NOT_HERE = ("output_attentions", "output_router_logits")
"""What the library asks other models for."""

_PACKING = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx")
"""What a collator that packs rows says of the documents beside their positions."""


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
        cache: RecurrentCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        reset: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: int | Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Read T tokens.

        Args:
          input_ids: `[B, T]`.
          attention_mask: `[B, T]`, or with the tokens in the cache before; zeros are padding, to
            the left or to the right of the document. The state is that after a row's last token:
            what follows padding to the right in a later call continues the document.
          position_ids: `[B, T]`; they only tell where documents begin, at position 0.
          past_key_values: the state to continue from; it is changed in place.
          cache: the same; the library's newer name.
          inputs_embeds: `[B, T, width]` instead of `input_ids`.
          labels: `[B, T]`, compared with the logits one token earlier; -100 is left out, and so is
            the first token of every document.
          use_cache: whether to return the state; None is the configuration's, and no in training.
          reset: bool `[B, T]`, true where a document begins.
          output_hidden_states: whether to return the input of every block, and the last output.
          return_dict: whether to return an object (default) or a tuple.
          logits_to_keep: number of last tokens to return logits of, or their indices; 0 is all.
          num_items_in_batch: divides the sum of the losses; None is the number of labels.
          **kwargs: what the library hands to every model and has no meaning here:
            `output_attentions` and `output_router_logits` false, `is_causal` true, and what
            collators say of packed rows beside `position_ids`.

        Raises:
          TypeError: an argument that is not known.
          ValueError: tokens and embeddings both or neither, a mask with a gap, a cache of another
            kind or under both names, a shape that does not fit, something that this model does
            not have, or autocast.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("exactly one of input_ids and inputs_embeds has to be given")
        _check_unused(kwargs, packed=position_ids is not None or reset is not None)
        cache = _only(past_key_values, cache)
        if cache is not None and not isinstance(cache, RecurrentCache):
            given = type(cache).__name__
            raise ValueError(f"{CACHE}: a RecurrentCache is accepted, not a {given}")
        if torch.is_autocast_enabled(self.device.type):
            raise ValueError("autocast is not supported: convert the model to the type instead")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        B, T, width = inputs_embeds.shape
        starts = _starts(B, T, inputs_embeds.device, attention_mask, position_ids, reset)
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        state = self.initial_state(B) if cache is None or cache.state is None else cache.state

        x, state = width**0.5 * inputs_embeds, cast(StackState, state)
        if use_cache and attention_mask is not None:
            x, state, hidden = self._read_padded(x, state, starts, _lengths(attention_mask, T))
        else:
            x, state, hidden = self._read(x, state, starts)
        if use_cache:
            cache = RecurrentCache() if cache is None else cache
            cache.advance(state, T)

        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(x[:, keep])
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        states: Any = (*hidden, x) if output_hidden_states else None  # typed FloatTensor there
        loss = None
        if labels is not None:
            # Without the tokens that begin a document.
            loss = self.loss_function(
                logits=logits,
                labels=labels.masked_fill(starts, IGNORED),
                vocab_size=self.config.vocab_size,
                num_items_in_batch=num_items_in_batch,
            )
        after: dict[str, Any] = {CACHE: cache if use_cache else None}
        output = CausalLMOutputWithPast(loss=loss, logits=logits, hidden_states=states, **after)
        return output if return_dict is not False else output.to_tuple()

    def generate(
        self,
        *args: Any,
        past_key_values: RecurrentCache | None = None,
        cache: RecurrentCache | None = None,
        **kwargs: Any,
    ) -> Any:
        """Generate tokens; see `GenerationMixin.generate`. A cache is taken under both names."""
        given = _only(past_key_values, cache)
        if given is not None:
            kwargs[CACHE] = given
        return super().generate(*args, **kwargs)

    def prepare_inputs_for_generation(
        self,
        input_ids: Any,
        next_sequence_length: int | None = None,
        past_key_values: Any = None,
        attention_mask: Any = None,
        inputs_embeds: Any = None,
        is_first_iteration: bool | None = False,
        reset: Tensor | None = None,
        cache: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the arguments of the next `forward`.

        `reset` is that of the prompt, with the tokens that are in the cache already.

        Raises:
          ValueError: a prompt that is padded to the right, or a `reset` shorter than it.
        """
        if is_first_iteration and attention_mask is not None:
            real = attention_mask.bool()
            if (real.any(1) & ~real[:, -1]).any():
                raise ValueError("attention_mask: a prompt has to be padded to the left")
        cache = _only(past_key_values, cache)
        if cache is not None and not is_first_iteration:
            attention_mask = None  # the prompt's padding has been read; no token after it is any
        kwargs[CACHE] = cache
        base: Any = super()
        inputs = base.prepare_inputs_for_generation(
            input_ids,
            next_sequence_length=next_sequence_length,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        if reset is not None:
            tokens = inputs.get("input_ids")
            T = (inputs["inputs_embeds"] if tokens is None else tokens).shape[1]
            begin = 0 if cache is None else cache.length
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

    def _read_padded(
        self, x: Tensor, state: StackState, reset: Tensor, lengths: list[int]
    ) -> tuple[Tensor, StackState, list[Tensor]]:
        """Read rows `lengths` long, padded to the right: `_read`, with zeros at the padding.

        The columns between two lengths are read by the rows that reach beyond them, so that every
        row's state stays where its tokens end.
        """
        B, T, _ = x.shape
        if min(lengths) == T:
            return self._read(x, state, reset)
        y, hidden = torch.zeros_like(x), [torch.zeros_like(x) for _ in self.blocks]
        begin = 0
        for end in sorted({*lengths} - {0}):
            rows = torch.tensor([b for b in range(B) if lengths[b] >= end], device=x.device)
            part = x[rows, begin:end], state.rows(rows), reset[rows, begin:end]
            read, new, inputs = self._read(*part)
            for whole, piece in zip((y, *hidden), (read, *inputs), strict=True):
                whole[rows, begin:end] = piece
            ended = new.tensors()
            state = state.with_tensors(
                {path: s.index_copy(0, rows, ended[path]) for path, s in state.tensors().items()}
            )
            begin = end
        return y, state, hidden

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
        seen = pad(real.cumsum(1) > 0, (1, 0))[:, :-1]  # a token before, in this row
        begins = real & ~seen
        begins[:, 0] = False  # at once: new, or the continuation of what is in the cache
        real, seen = real[:, -T:], seen[:, -T:]
        # Not at every token of a generation, because this waits for the device.
        if T > 1 and (real[:, 1:] & ~real[:, :-1] & seen[:, 1:]).any():
            raise ValueError("attention_mask: padding between tokens of a row is not accepted")
        starts = starts | begins[:, -T:]
    return starts


def _lengths(attention_mask: Tensor, T: int) -> list[int]:
    """Return how many of the last T columns come before each row's padding to the right."""
    columns = torch.arange(1, T + 1, device=attention_mask.device)
    last: list[int] = (attention_mask[:, -T:].bool() * columns).amax(1).tolist()
    return last


def _only(past_key_values: Any, cache: Any) -> Any:
    """Return the cache, which may have either name."""
    if past_key_values is not None and cache is not None:
        raise ValueError("past_key_values and cache are two names of one thing: give one of them")
    return past_key_values if cache is None else cache


def _check_unused(given: dict[str, Any], *, packed: bool) -> None:
    """Refuse what is not known, and what would have a meaning that it does not have here."""
    known = (*_NOT_HERE, *_PACKING, "is_causal")
    if unknown := [name for name in given if name not in known]:
        raise TypeError(f"forward: unknown arguments {', '.join(map(repr, unknown))}")
    for name, value in given.items():
        if name in _NOT_HERE and value:
            raise ValueError(f"{name}: this model has nothing of the kind; accepted: false")
        if name == "is_causal" and value is False:
            raise ValueError("is_causal: this model reads forward only; accepted: true")
        if name in _PACKING and value is not None and not packed:
            raise ValueError(f"{name}: documents are told by position_ids or reset; give one")


def _is_loaded(parameter: Tensor) -> bool:
    return getattr(parameter, "_is_hf_initialized", False)
