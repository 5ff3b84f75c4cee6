"""The language model: generation, packed documents, padding, files and learning."""

import copy
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

pytest.importorskip("transformers")

from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from palaestra.errors import UserError
from palaestra.policies.language import PalaestraConfig, PalaestraForCausalLM, RecurrentCache
from palaestra.policies.language.library import CACHE

V = 23

STACKS = {
    "rat": ["rat", "rat"],
    "mesa": ["mesa", "mesa"],
    "gla": ["gla", "gla"],
    "deltanet": ["deltanet", "deltanet"],
    "gated-deltanet": ["gated-deltanet", "gated-deltanet"],
    "attention": ["attention", "attention"],
    "rat-swa": ["attention", "rat"],
    "gru": ["gru"],
    "lstm": ["lstm"],
    "all": ["attention", "rat", "mesa", "gla", "gated-deltanet"],
}

every_stack = pytest.mark.parametrize("name", STACKS)


def make(name: str, **options: Any) -> PalaestraForCausalLM:
    torch.manual_seed(0)
    given = dict(
        vocab_size=V,
        width=16,
        heads=2,
        expansion=2,
        layers=STACKS[name],
        rat={"chunk": 3, "context": 30},
        attention={"window": 5},
    )
    return PalaestraForCausalLM(PalaestraConfig(**given | options)).eval()


def tokens(*shape: int) -> Tensor:
    return torch.randint(V, shape, generator=torch.Generator().manual_seed(1))


def state_after(output: Any) -> RecurrentCache:
    """The cache of an output, under the name that the installed library has for it."""
    cache = getattr(output, CACHE)
    assert isinstance(cache, RecurrentCache)
    return cache


def assert_close(a: Tensor, b: Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


@every_stack
def test_generation_gives_the_teacher_forced_probabilities_and_their_argmax(name: str) -> None:
    model, prompt, new = make(name), tokens(3, 9), 12
    out = model.generate(
        prompt,
        max_new_tokens=new,
        do_sample=False,
        output_scores=True,
        return_dict_in_generate=True,
    )
    logits = model(out.sequences[:, :-1]).logits[:, 8:]
    assert_close(torch.stack(out.scores, 1).log_softmax(-1), logits.log_softmax(-1))
    chosen = logits.gather(2, out.sequences[:, 9:, None]).squeeze(2)
    assert_close(chosen, logits.amax(-1))  # the likeliest, or as likely to the last bits
    assert state_after(out).get_seq_length() == 9 + new - 1


@every_stack
def test_sampled_tokens_have_the_teacher_forced_probabilities(name: str) -> None:
    model, prompt = make(name), tokens(2, 4)
    out = model.generate(
        prompt,
        max_new_tokens=8,
        do_sample=True,
        top_k=0,
        output_scores=True,
        return_dict_in_generate=True,
    )
    sampled = model.compute_transition_scores(out.sequences, out.scores, normalize_logits=True)
    logits = model(out.sequences[:, :-1]).logits[:, 3:].log_softmax(-1)
    assert_close(sampled, logits.gather(2, out.sequences[:, 4:, None]).squeeze(2))


@every_stack
def test_generation_without_the_state_gives_the_same(name: str) -> None:
    model, prompt = make(name).double(), tokens(2, 7)
    with_state, without = (
        model.generate(prompt, max_new_tokens=6, do_sample=False, use_cache=use_cache)
        for use_cache in (True, False)
    )
    assert torch.equal(with_state, without)


@pytest.mark.parametrize("given", ["past_key_values", "cache"])
def test_a_cache_is_taken_under_both_names(given: str) -> None:
    model, x = make("all").double(), tokens(2, 10)
    whole = model.generate(x, max_new_tokens=4, do_sample=False)
    prefix = state_after(model(x[:, :6]))
    rest = model(x[:, 6:], **{given: copy.deepcopy(prefix)}).logits
    assert_close(rest, model(x).logits[:, 6:], 1e-10)
    continued = model.generate(x, max_new_tokens=4, do_sample=False, **{given: prefix})
    assert torch.equal(continued, whole)
    assert prefix.get_seq_length() == 13


def test_what_the_library_hands_to_every_model_is_taken() -> None:
    model, x = make("all"), tokens(1, 6)
    position = torch.tensor([[0, 1, 2, 0, 1, 2]])
    packing = dict(
        cu_seq_lens_q=torch.tensor([0, 3, 6]),
        cu_seq_lens_k=torch.tensor([0, 3, 6]),
        max_length_q=3,
        max_length_k=3,
        seq_idx=torch.tensor([[0, 0, 0, 1, 1, 1]]),
    )
    others = dict(output_attentions=None, output_router_logits=False, is_causal=True)
    plain = model(x, position_ids=position).logits
    assert torch.equal(model(x, position_ids=position, **packing, **others).logits, plain)


@every_stack
def test_padding_to_the_right_leaves_the_state_where_the_tokens_end(name: str) -> None:
    model, x = make(name).double(), tokens(4, 12)
    lengths, more = [6, 2, 0, 4], x[:, 6:]
    mask = (torch.arange(6) < torch.tensor(lengths)[:, None]).long()
    reset = torch.zeros(4, 6, dtype=torch.bool)
    reset[0, 4] = reset[3, 1] = True
    outputs = model(x[:, :6], attention_mask=mask, reset=reset, output_hidden_states=True)
    cache, unpadded = state_after(outputs), model(x[:, :6], reset=reset, use_cache=False)
    for b, n in enumerate(lengths):
        assert_close(outputs.logits[b, :n], unpadded.logits[b, :n], 1e-10)
    # A token alone, a window, and a row that waits meanwhile.
    masks = [
        torch.tensor([[1], [1], [0], [1]]),
        torch.tensor([[1] * 4, [1] * 4, [1] * 4, [1, 0, 0, 0]]),
    ]
    read, seen, begin = [outputs.logits], mask, 0
    for new in masks:
        seen = torch.cat([seen, new], 1)
        window = more[:, begin : begin + new.shape[1]]
        read.append(model(window, attention_mask=seen, **{CACHE: cache}).logits)
        begin += new.shape[1]
    logits, real = torch.cat(read, 1), seen.bool()
    everything = torch.cat([x[:, :6], more[:, :5]], 1)
    for b in range(4):
        row, start = everything[b : b + 1, real[b]], torch.zeros(1, 11, dtype=torch.bool)
        start[:, :6] = reset[b]
        alone = model(row, reset=start[:, real[b]]).logits[0]
        assert_close(logits[b, real[b]], alone, 1e-10)


@every_stack
def test_packed_documents_with_resets_equal_separate_ones(name: str) -> None:
    model, x = make(name), tokens(1, 17)
    borders = [0, 4, 5, 17]
    reset = torch.zeros(1, 17, dtype=torch.bool)
    reset[0, borders[1:-1]] = True
    apart = [model(x[:, i:j], labels=x[:, i:j]) for i, j in pairwise(borders)]
    together = model(x, reset=reset, labels=x)
    assert_close(together.logits, torch.cat([part.logits for part in apart], 1), 1e-5)
    assert not torch.allclose(together.logits[:, 5:], model(x).logits[:, 5:], atol=1e-3)
    counts = [3, 0, 11]
    total = sum(n * part.loss for n, part in zip(counts, apart, strict=True) if n)
    assert_close(together.loss, total / sum(counts), 1e-5)
    position = torch.cat([torch.arange(j - i) for i, j in pairwise(borders)])
    assert_close(model(x, position_ids=position[None]).logits, together.logits, 0)


@every_stack
def test_padding_to_the_left_changes_nothing(name: str) -> None:
    model, x = make(name).double(), tokens(2, 8)
    mask = torch.ones(2, 8, dtype=torch.long)
    mask[1, :3] = 0
    assert_close(model(x, attention_mask=mask).logits[1:, 3:], model(x[1:, 3:]).logits, 1e-5)
    for use_cache in (True, False):
        padded = model.generate(
            x, attention_mask=mask, max_new_tokens=7, do_sample=False, use_cache=use_cache
        )
        alone = [model.generate(r, max_new_tokens=7, do_sample=False) for r in (x[:1], x[1:, 3:])]
        assert torch.equal(padded[0], alone[0][0])
        assert torch.equal(padded[1, 3:], alone[1][0])
    pieces = model.generate(
        x,
        attention_mask=mask,
        prefill_chunk_size=2,
        max_new_tokens=7,
        do_sample=False,
        **{CACHE: RecurrentCache()},
    )
    assert torch.equal(pieces, padded)


@every_stack
def test_a_window_may_be_cut_anywhere_while_the_state_is_carried(name: str) -> None:
    model, x = make(name), tokens(2, 11)
    whole, cache, parts = model(x).logits, RecurrentCache(), []
    for part in x.split([3, 1, 1, 6], 1):
        parts.append(model(part, past_key_values=cache).logits)
    assert_close(torch.cat(parts, 1), whole, 1e-5)
    assert cache.get_seq_length() == 11


@every_stack
def test_saved_and_loaded_models_are_equal_to_the_last_bit(name: str, tmp_path: Path) -> None:
    model, x = make(name, tie_word_embeddings=name == "all"), tokens(2, 8)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    config = AutoConfig.from_pretrained(tmp_path)
    assert type(config) is PalaestraConfig
    assert config.options() == model.config.options()
    for cls in (PalaestraForCausalLM, AutoModelForCausalLM):
        loaded = cls.from_pretrained(tmp_path)
        assert type(loaded) is PalaestraForCausalLM
        assert loaded.state_dict().keys() == model.state_dict().keys()
        assert torch.equal(loaded(x).logits, model(x).logits)


def test_constants_that_files_do_not_hold_are_restored(tmp_path: Path) -> None:
    model, x = make("gla", gla={"decay": "lightning"}), tokens(2, 8)
    model.save_pretrained(tmp_path)
    assert torch.equal(PalaestraForCausalLM.from_pretrained(tmp_path)(x).logits, model(x).logits)


def test_weights_that_a_file_lacks_are_drawn_anew_and_the_others_kept(tmp_path: Path) -> None:
    model = make("mesa")
    state = model.state_dict()
    lacking = "blocks.1.mixer.gate_bias"
    model.save_pretrained(tmp_path, state_dict={k: v for k, v in state.items() if k != lacking})
    loaded = PalaestraForCausalLM.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(loaded[k], state[k]) for k in state if k != lacking)
    beta, gamma = loaded[lacking].chunk(2)
    assert torch.equal(beta, torch.zeros(2))
    assert ((gamma >= 0) & (gamma < 5)).all()  # log U(1, 127)


def test_the_loss_is_the_mean_over_tokens_that_have_a_label() -> None:
    model, x = make("all"), tokens(2, 9)
    labels = x.clone()
    labels[1, 6:] = -100
    out = model(x, labels=labels)
    mean = cross_entropy(out.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert_close(out.loss, mean, 1e-6)
    total = model(x, labels=labels, num_items_in_batch=26).loss
    assert_close(total, mean * 13 / 26, 1e-6)


@every_stack
def test_every_weight_gets_a_gradient_and_none_crosses_a_reset(name: str) -> None:
    model, x = make(name).train(), tokens(2, 12)
    embeds = model.get_input_embeddings()(x).detach().requires_grad_()
    reset = torch.zeros(2, 12, dtype=torch.bool)
    reset[:, 5] = True
    out = model(inputs_embeds=embeds, reset=reset)
    assert getattr(out, CACHE) is None
    (before,) = torch.autograd.grad(out.logits[:, 5:].square().sum(), embeds)
    assert (before[:, :5] == 0).all()
    assert (before[:, 5:] != 0).any(2).all()
    model(x, labels=x).loss.backward()
    lacking = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not lacking


def test_beam_search_keeps_the_state_of_every_beam() -> None:
    model, prompt = make("all"), tokens(2, 6)
    out, again = (
        model.generate(
            prompt,
            max_new_tokens=6,
            num_beams=3,
            do_sample=False,
            use_cache=use_cache,
            output_scores=True,
            return_dict_in_generate=True,
        )
        for use_cache in (True, False)
    )
    assert torch.equal(out.sequences, again.sequences)
    assert_close(out.sequences_scores, again.sequences_scores)


def test_a_copied_state_continues_the_same_prefix_twice() -> None:
    model, x = make("all").double(), tokens(2, 10)
    prefix = state_after(model(x[:, :6]))
    for _ in range(2):
        rest = model(x[:, 6:], past_key_values=copy.deepcopy(prefix)).logits
        assert_close(rest, model(x).logits[:, 6:], 1e-5)
    whole = model.generate(x, max_new_tokens=4, do_sample=False)
    assert torch.equal(
        model.generate(x, past_key_values=prefix, max_new_tokens=4, do_sample=False), whole
    )


def test_prompts_given_as_embeddings_are_read_the_same() -> None:
    model, x = make("all").double(), tokens(2, 6)
    embeds = model.get_input_embeddings()(x)
    new = model.generate(inputs_embeds=embeds, max_new_tokens=4, do_sample=False)
    assert torch.equal(new, model.generate(x, max_new_tokens=4, do_sample=False)[:, 6:])


def test_a_prompt_may_be_read_in_pieces_and_hold_resets() -> None:
    model, x = make("all").double(), tokens(2, 10)
    reset = torch.zeros(2, 10, dtype=torch.bool)
    reset[0, 4] = True
    plain = model.generate(x, reset=reset, max_new_tokens=5, do_sample=False)
    pieces = model.generate(
        x,
        reset=reset,
        past_key_values=RecurrentCache(),
        prefill_chunk_size=3,
        max_new_tokens=5,
        do_sample=False,
    )
    without = model.generate(x, reset=reset, use_cache=False, max_new_tokens=5, do_sample=False)
    alone = model.generate(x[:1, 4:], max_new_tokens=5, do_sample=False)
    assert torch.equal(plain, pieces)
    assert torch.equal(plain, without)
    assert torch.equal(plain[0, 4:], alone[0])


def test_the_resets_of_a_prompt_include_those_of_its_tokens_in_the_cache() -> None:
    model, x = make("all").double(), tokens(2, 10)
    reset = torch.zeros(2, 10, dtype=torch.bool)
    reset[0, 4], reset[1, 8] = True, True
    prefix = state_after(model(x[:, :6], reset=reset[:, :6]))
    how = dict(max_new_tokens=5, do_sample=False)
    with pytest.raises(ValueError, match=r"reset: \[2, 10\] is accepted.*not \[2, 4\]"):
        model.generate(x, past_key_values=copy.deepcopy(prefix), reset=reset[:, 6:], **how)
    on = model.generate(x, past_key_values=prefix, reset=reset, **how)
    assert torch.equal(on, model.generate(x, reset=reset, **how))


def test_the_state_does_not_grow_with_the_tokens() -> None:
    model = make("all")
    sizes = [
        sum(x.numel() for x in state_after(model(tokens(1, T))).state.tensors().values())
        for T in (2, 60)
    ]
    assert sizes[0] == sizes[1]


def test_outputs_that_a_caller_asks_for_are_there() -> None:
    model, x = make("all"), tokens(2, 7)
    out = model(x, output_hidden_states=True, logits_to_keep=2)
    assert len(out.hidden_states) == 6
    assert_close(out.logits, model(x).logits[:, -2:], 0)
    assert_close(model.lm_head(out.hidden_states[-1])[:, -2:], out.logits, 1e-6)
    (logits,) = model(x, return_dict=False, use_cache=False)
    assert_close(logits, model(x).logits, 0)


def test_tied_weights_are_one_and_survive_a_larger_vocabulary() -> None:
    model = make("rat", tie_word_embeddings=True)
    assert model.lm_head.weight is model.embed_tokens.weight
    model.resize_token_embeddings(V + 2)
    assert model(tokens(1, 3)).logits.shape == (1, 3, V + 2)
    assert model.lm_head.weight is model.embed_tokens.weight


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"vocab_size": 0}, "vocab_size"),
        ({"layers": ["rat", "rta"]}, "layers.1"),
        ({"layers": []}, "layers"),
        ({"rat": {"chunk": 0}}, "rat.chunk"),
        ({"mesa": {"solver_step": 3}}, "mesa.solver_step"),
        ({"width": 20, "heads": 4}, "width"),
        ({"hidden_size": 20, "heads": 4}, "width"),
        ({"eos_token_id": [3, 400]}, "eos_token_id"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(UserError, match=field.replace(".", r"\.")):
        PalaestraConfig(**options)


def test_wrong_arguments_are_named() -> None:
    model, x = make("rat"), tokens(2, 5)
    with pytest.raises(ValueError, match="input_ids and inputs_embeds"):
        model()
    with pytest.raises(ValueError, match="reset"):
        model(x, reset=torch.zeros(2, 4, dtype=torch.bool))
    for name in ("past_key_values", "cache"):
        with pytest.raises(ValueError, match="a RecurrentCache is accepted, not a DynamicCache"):
            model(x, **{name: DynamicCache()})
    both = {"past_key_values": RecurrentCache(), "cache": RecurrentCache()}
    for call in (model, model.generate):
        with pytest.raises(ValueError, match="two names of one thing"):
            call(x, **both)
    with pytest.raises(TypeError, match="unknown arguments 'atention_mask', 'ignore_index'"):
        model(x, atention_mask=torch.ones(2, 5), ignore_index=3)
    with pytest.raises(ValueError, match="output_attentions"):
        model(x, output_attentions=True)
    with pytest.raises(ValueError, match="is_causal"):
        model(x, is_causal=False)
    with pytest.raises(ValueError, match="cu_seq_lens_q: documents are told by position_ids"):
        model(x, cu_seq_lens_q=torch.tensor([0, 3, 5]))
    with pytest.raises(ValueError, match="autocast"), torch.autocast("cpu", torch.bfloat16):
        model(x)
    with pytest.raises(ValueError, match="stateful"):
        model.generate(x, prompt_lookup_num_tokens=2)
    mask = torch.tensor([[1, 1, 0, 1, 1], [1, 1, 1, 1, 1]])
    with pytest.raises(ValueError, match="attention_mask"):
        model(x, attention_mask=mask)
    with pytest.raises(ValueError, match="attention_mask"):
        model.generate(x, attention_mask=mask.sort(descending=True).values, max_new_tokens=2)
    with pytest.raises(ValueError, match="take back"):
        state_after(model(x)).crop(1)


def test_a_missing_package_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['transformers'] = None\n"
        "import palaestra.policies\n"
        "try:\n    import palaestra.policies.language\n"
        "except ValueError as error:\n    print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'palaestra[llm]'" in ran.stdout


def test_perceptrons_are_as_wide_as_the_configuration_says() -> None:
    model = make(next(iter(STACKS)))
    assert all(block.mlp.down.in_features == 2 * 16 for block in model.blocks)


def test_it_learns_to_copy() -> None:
    torch.manual_seed(0)
    config = PalaestraConfig(
        vocab_size=8, width=32, heads=2, layers=["attention", "attention"], attention={"window": 8}
    )
    model = PalaestraForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    ignored = torch.full((32, 4), -100)
    for _ in range(300):
        x = torch.randint(8, (32, 4)).repeat(1, 2)
        labels = torch.cat([ignored, x[:, 4:]], 1)
        loss = model(x, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.02:
            break
    x = torch.randint(8, (16, 4)).repeat(1, 2)
    copied = model.eval().generate(x[:, :5], max_new_tokens=3, do_sample=False)
    assert (copied == x).float().mean() > 0.98


@every_stack
def test_a_model_in_bfloat16_generates_and_learns(name: str) -> None:
    model, x = make(name).to(torch.bfloat16), tokens(2, 9)
    assert model.generate(x, max_new_tokens=3, do_sample=False).shape == (2, 12)
    model.train()(x, labels=x).loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
