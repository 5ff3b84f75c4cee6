"""Weights as one safetensors file: equal weights give equal bytes."""

import json
from pathlib import Path

import numpy as np

import palaestra
from palaestra.agents.base import Agent
from palaestra.errors import UserError
from palaestra.experience.weights import Weights

_LENGTH = 8
"""Bytes of the header's length, little-endian, at the start of a safetensors file."""


def to_safetensors(weights: Weights) -> bytes:
    """Return the file's content, with the version of Palaestra in its metadata."""
    from safetensors.numpy import save

    content = save({name: np.ascontiguousarray(x).reshape(x.shape) for name, x in weights.items()})
    end = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    # Written here, because safetensors writes several keys of metadata in random order.
    metadata = {"format": "np", "palaestra": palaestra.__version__}
    header = {"__metadata__": metadata, **json.loads(content[_LENGTH:end])}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH)
    return len(text).to_bytes(_LENGTH, "little") + text + content[end:]


def from_safetensors(content: bytes, source: Path) -> Weights:
    """Return the arrays of a safetensors file.

    Raises:
      UserError: another kind of file, such as a pickle; nothing else is ever read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{source}: not a safetensors file, and nothing else is read (no pickle): {error}"
        ) from None


def check_weights(weights: Weights, agent: Agent, source: Path) -> None:
    """Compare the weights with those that the agent starts from, and let an actor take them.

    Raises:
      UserError: they do not fit: the file belongs to another agent.
    """
    learner = agent.make_learner()
    if learner is not None:
        expected = {name: _kind(array) for name, array in learner.weights().items()}
        given = {name: _kind(array) for name, array in weights.items()}
        for name in sorted({*expected, *given}):
            if expected.get(name) != given.get(name):
                raise UserError(
                    f"{source}: {name!r} is {given.get(name, 'missing')}, but the agent that "
                    f"config.yaml describes has {expected.get(name, 'no such array')}."
                )
    try:
        agent.make_actor().load_weights(weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{source}: the weights do not fit the agent that config.yaml describes: {error}"
        ) from None


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype.name} {list(array.shape)}"
