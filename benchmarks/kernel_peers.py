"""Who is measured: our forms, and what others offer for the same work.

A contender is called with inputs `[B, T, H, D]` by name and the mask of resets or None, and returns
outputs.
The operators of fla-core (https://github.com/fla-org/flash-linear-attention) take no mask: they get
all rows packed into one and the bounds of episodes, whose making belongs to their time, since a
user would have to do it in every update. That waits for the GPU, so it cannot be in a CUDA graph.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import pad, scaled_dot_product_attention

from palaestra.kernels.verify.cases import CELLS, Case, Inputs, Size, forms

OURS = "palaestra"
LOOP = "palaestra, loop over tokens"

LONGEST_REFERENCE = 512
"""Steps up to which the PyTorch form is measured on a GPU: compiling unrolls its loop."""

Run = Callable[[Inputs, Tensor | None], Tensor]


@dataclass(frozen=True)
class Contender:
    """Something that can be timed."""

    name: str
    run: Run
    when: Callable[[float], bool] = lambda p: True
    """Whether it is measured where a step is a reset with probability p."""
    same: bool = True
    """Whether it computes what ours computes, so that the outputs can be compared."""
    capturable: bool = True
    """Whether it can be in a CUDA graph where there are resets."""
    parameters: tuple[Tensor, ...] = ()
    """Receive gradients, besides the inputs."""
    needs: str = ""
    """Package that has to be installed."""

    @property
    def missing(self) -> bool:
        """Whether its package is not installed."""
        return bool(self.needs) and find_spec(self.needs) is None


def contenders(
    case: Case, section: str, size: Size, dtype: torch.dtype, device: torch.device
) -> list[Contender]:
    """Return who is measured on windows; ours comes first."""
    found = [Contender(OURS, ours(case, "auto"))]
    if device.type == "cpu":
        found.append(Contender(LOOP, loop(case), when=lambda p: p in (0, 0.03)))
    elif "triton" in case.impls and size.T <= LONGEST_REFERENCE:
        reference = ours(case, "reference")
        found.append(Contender("palaestra, reference", reference))
        found.append(Contender("palaestra, reference, compiled", compiled(reference)))
    if device.type == "cuda" and case.name in FLA:
        found.append(fla(case))
    if case.op not in CELLS and (section != "rl" or case.op == "attention"):
        found += softmax(case.op == "attention", device)
    if section != "llm":
        found += recurrent_networks(size, dtype, device)
    return found


def ours(case: Case, impl: str) -> Run:
    """Return the chunk form."""
    chunk = forms(case.op).chunk

    def run(inputs: Inputs, reset: Tensor | None) -> Tensor:
        return chunk(**inputs, reset=reset, impl=impl, **case.options)[0]

    return run


def loop(case: Case) -> Run:
    """Return the loop over tokens."""
    recurrent = forms(case.op).recurrent

    def run(inputs: Inputs, reset: Tensor | None) -> Tensor:
        return recurrent(**inputs, reset=reset, **case.options)[0]

    return run


def compiled(run: Run) -> Run:
    """Return `run` through `torch.compile`, for one size."""
    return torch.compile(run, dynamic=False)


FLA = {
    "gla plain": ("simple_gla", "chunk_simple_gla"),
    "gla per head": ("simple_gla", "chunk_simple_gla"),
    "gla per channel": ("gla", "chunk_gla"),
    "delta plain": ("delta_rule", "chunk_delta_rule"),
    "delta gated": ("gated_delta_rule", "chunk_gated_delta_rule"),
    "mesa": ("mesa_net", "chunk_mesa_net"),
}
"""Module and function of fla-core for each of our operators; the names of arguments are ours."""


def fla(case: Case) -> Contender:
    """Return the operator of fla-core."""
    module, name = FLA[case.name]

    def run(inputs: Inputs, reset: Tensor | None) -> Tensor:
        chunk = getattr(import_module(f"fla.ops.{module}"), name)
        if reset is None:
            return chunk(**inputs)[0]
        packed, bounds = pack(inputs, reset, case.timeless)
        return chunk(**packed, cu_seqlens=bounds)[0].view(*reset.shape, *inputs["v"].shape[2:])

    return Contender(f"fla {name}", run, capturable=False, needs="fla")


def pack(inputs: Inputs, reset: Tensor, timeless: tuple[str, ...] = ()) -> tuple[Inputs, Tensor]:
    """Return the rows as one row, and the bounds of its episodes, int64 `[N + 1]`.

    Each row begins an episode here, as nothing is carried in.
    """
    first = reset.clone()
    first[:, 0] = True
    bounds = pad(first.flatten().nonzero().flatten(), (0, 1), value=first.numel())
    one = {n: x if n in timeless else x.flatten(0, 1).unsqueeze(0) for n, x in inputs.items()}
    return one, bounds


def softmax(same: bool, device: torch.device) -> list[Contender]:
    """Return softmax attention by PyTorch."""
    found = [
        Contender("SDPA, causal", causal, when=without_resets, same=same),
        Contender("SDPA, mask of episodes", masked, when=lambda p: p == 0.03, same=same),
    ]
    if device.type == "cuda":
        found.append(
            Contender("flex_attention, compiled", compiled(flexible), when=bool, same=same)
        )
    return found


def without_resets(p: float) -> bool:
    """Whether nothing resets."""
    return p == 0


def causal(inputs: Inputs, reset: Tensor | None) -> Tensor:
    """Attend to all earlier steps."""
    q, k, v = _heads_first(inputs)
    return scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


def masked(inputs: Inputs, reset: Tensor | None) -> Tensor:
    """Attend to earlier steps of the episode; the mask is made here."""
    assert reset is not None
    q, k, v = _heads_first(inputs)
    seg = reset.cumsum(1)
    allow = (seg.unsqueeze(2) == seg.unsqueeze(1)).tril().unsqueeze(1)
    return scaled_dot_product_attention(q, k, v, attn_mask=allow).transpose(1, 2)


def flexible(inputs: Inputs, reset: Tensor | None) -> Tensor:
    """Attend to earlier steps of the episode; blocks without any are left out."""
    assert reset is not None
    q, k, v = _heads_first(inputs)
    seg, (B, T) = reset.cumsum(1), reset.shape

    def allow(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return (j <= i) & (seg[b, i] == seg[b, j])

    blocks = create_block_mask(allow, B, None, T, T, device=reset.device)
    return flex_attention(q, k, v, block_mask=blocks).transpose(1, 2)


def _heads_first(inputs: Inputs) -> list[Tensor]:
    """Return q, k and v `[B, H, T, D]`; keys that heads share are repeated."""
    H = inputs["v"].shape[2]
    found = (inputs[name] for name in ("q", "k", "v"))
    return [x.repeat(1, 1, H // x.shape[2], 1).transpose(1, 2) for x in found]


def recurrent_networks(size: Size, dtype: torch.dtype, device: torch.device) -> list[Contender]:
    """Return PyTorch's recurrent networks of the same width; they know no resets."""
    found, width = [], size.H * size.D
    for kind in (torch.nn.LSTM, torch.nn.GRU):
        network: Any = kind(width, width, batch_first=True, dtype=dtype, device=device)

        def run(inputs: Inputs, reset: Tensor, network: Any = network) -> Tensor:
            x = inputs["x"] if "x" in inputs else inputs["v"].flatten(2)
            return network(x)[0]

        weights = tuple(network.parameters())
        name = f"torch.nn.{kind.__name__}"
        found.append(Contender(name, run, when=without_resets, same=False, parameters=weights))
    return found
