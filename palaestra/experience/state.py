"""What a policy remembers between steps: small dataclasses of batch-first tensors."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np


@dataclass
class State:
    """Base of every state; a field is a tensor or array `[B, ...]`, or a tuple of states.

    A state without fields belongs to a policy without memory.
    """

    def map(self, function: Callable[[Any], Any]) -> Self:
        """Return this state with `function` applied to every tensor."""
        return replace(
            self, **{f.name: _map(getattr(self, f.name), function) for f in fields(self)}
        )

    def rows(self, index: Any) -> Self:
        """Return the batch rows at `index` (slice, integer or boolean array)."""
        return self.map(lambda tensor: tensor[index])

    def put(self, index: Any, rows: Self) -> Self:
        """Return this state with the batch rows at `index` replaced by those of `rows`."""
        parts = rows.tensors()
        return self.with_tensors(
            {path: _put(x, index, parts[path]) for path, x in self.tensors().items()}
        )

    def tensors(self, prefix: str = "") -> dict[str, Any]:
        """Return every tensor under its dotted field path, for checkpoints."""
        found: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                for i, part in enumerate(value):
                    found |= part.tensors(f"{prefix}{field.name}.{i}.")
            elif isinstance(value, State):
                found |= value.tensors(f"{prefix}{field.name}.")
            else:
                found[prefix + field.name] = value
        return found

    def with_tensors(self, tensors: dict[str, Any], prefix: str = "") -> Self:
        """Return this state with the tensors that `tensors()` gave, by path."""
        new: dict[str, Any] = {}
        for field in fields(self):
            value, path = getattr(self, field.name), prefix + field.name
            if isinstance(value, tuple):
                new[field.name] = tuple(
                    part.with_tensors(tensors, f"{path}.{i}.") for i, part in enumerate(value)
                )
            elif isinstance(value, State):
                new[field.name] = value.with_tensors(tensors, f"{path}.")
            else:
                new[field.name] = tensors[path]
        return replace(self, **new)


def concatenate(states: list[State], cat: Callable[[list[Any]], Any]) -> State:
    """Return one state with the batch rows of all `states`, joined by `cat` (e.g. `torch.cat`)."""
    first = states[0]
    paths = [state.tensors() for state in states]
    return first.with_tensors({path: cat([p[path] for p in paths]) for path in paths[0]})


def _put(whole: Any, index: Any, part: Any) -> Any:
    copied = whole.copy() if isinstance(whole, np.ndarray) else whole.clone()
    copied[index] = part
    return copied


def _map(value: Any, function: Callable[[Any], Any]) -> Any:
    if isinstance(value, tuple):
        return tuple(_map(part, function) for part in value)
    if isinstance(value, State):
        return value.map(function)
    return function(value)
