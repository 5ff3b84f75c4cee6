"""Policies: from observations to action distributions, with or without memory.

    policy = policies.make("gru", observation_space, action_space, hidden_size=128)

Registered under the kind "policy".
"""

import importlib
from typing import Any

from palaestra.registry import register_builtin

_EXPORTS = {
    "Backbone": "palaestra.policies.backbone",
    "Policy": "palaestra.policies.base",
    "PolicyOutput": "palaestra.policies.base",
    "PolicySpec": "palaestra.policies.base",
    "make": "palaestra.policies.base",
    "SequenceConfig": "palaestra.policies.sequence",
    "SequencePolicy": "palaestra.policies.sequence",
    "State": "palaestra.experience.state",
    "Torso": "palaestra.policies.torso",
}

_POLICIES = {
    "mlp": ("mlp:MLPPolicy", "a perceptron without memory"),
    "gru": ("gru:GRUPolicy", "a gated recurrent network"),
    "lstm": ("lstm:LSTMPolicy", "long short-term memory"),
    "attention": ("attention:AttentionPolicy", "a transformer over the last steps of the episode"),
    "sliding-attention": (
        "sliding_attention:SlidingAttentionPolicy",
        "softmax attention over a sliding window",
    ),
    "rat": ("rat:RATPolicy", "recurrence within chunks, attention to finished chunks"),
    "rat-swa": ("rat:RATSWAPolicy", "sliding attention and RAT in turn"),
    "gla": ("gla:GLAPolicy", "gated linear attention"),
    "deltanet": ("delta:DeltaNetPolicy", "the delta rule"),
    "gated-deltanet": ("delta:GatedDeltaNetPolicy", "the delta rule with decay"),
    "mesa": ("mesa:MesaPolicy", "a ridge regression on the episode at every step"),
    "mixture": ("mixture:MixturePolicy", "a mixer of its own in every block"),
}

for _name, (_target, _summary) in _POLICIES.items():
    register_builtin("policy", _name, f"palaestra.policies.{_target}", _summary)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
