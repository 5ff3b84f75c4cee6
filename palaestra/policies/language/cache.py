"""The state of a language model as the cache that generation hands from token to token."""

from typing import Any

import torch
from torch import Tensor

from palaestra.experience.state import State
from palaestra.policies.language.library import Cache


class RecurrentCache(Cache):
    """The state after the tokens read so far; its size does not grow with their number.

    Like every cache of the library it is changed in place. `copy.deepcopy` keeps a prefix to
    continue from several times.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.state: State | None = None
        """None before the first token."""
        self.length = 0
        """Tokens read, padding included."""

    def advance(self, state: State, tokens: int) -> None:
        """Take the state after `tokens` more tokens."""
        self.state, self.length = state, self.length + tokens

    def __deepcopy__(self, memo: dict[int, Any]) -> "RecurrentCache":
        new = type(self)()
        new.length = self.length
        new.state = None if self.state is None else self.state.map(torch.clone)
        return new

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return how many tokens have been read, padding included."""
        return self.length

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep the rows `beam_idx`, as beam search asks."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows `indices`."""
        if self.state is not None:
            self.state = self.state.map(lambda x: x.index_select(0, indices.to(x.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row `repeats` times."""
        if self.state is not None:
            self.state = self.state.map(lambda x: torch.repeat_interleave(x, repeats, 0))

    def reset(self) -> None:
        """Forget everything."""
        self.state, self.length = None, 0

    def crop(self, tokens_to_remove: int) -> None:
        """Raise ValueError: a recurrent state cannot go back."""
        raise ValueError("a recurrent state cannot take back tokens; copy the cache before them")

    @property
    def is_compileable(self) -> bool:
        """Return False: generation prepares no static masks for it."""
        return False

    @property
    def is_croppable(self) -> bool:
        """Return False."""
        return False

    @property
    def is_linear(self) -> list[bool]:
        """Return `[False]`: generation then leaves out the tokens that have been read."""
        return [False]

    @property
    def is_initialized(self) -> bool:
        """Return whether any token has been read."""
        return self.state is not None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(length={self.length})"

    def __len__(self) -> int:
        layers: Any = getattr(self.state, "layers", ())
        return len(layers)
