"""What Stable-Baselines3 logs, under the names that Palaestra's agents use."""

from collections.abc import Sequence
from typing import Any

import numpy as np

_NAMES = {"train/policy_gradient_loss": "train/policy_loss"}
"""Names of the same thing; all others are kept."""

_LATEST = ("train/learning_rate", "train/n_updates", "rollout/exploration_rate")
"""Values that describe a moment; all others are averaged over the updates of a round."""


def collect_metrics(logger: Any) -> dict[str, float]:
    """Return what an algorithm has recorded since the last call."""
    metrics = {_NAMES.get(name, name): float(value) for name, value in logger.name_to_value.items()}
    if "train/entropy_loss" in metrics:
        metrics["train/entropy"] = -metrics.pop("train/entropy_loss")
    logger.dump()  # writes nowhere and forgets the values
    return metrics


def mean_metrics(logs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the metrics of several updates as those of one; not all have to log all names."""
    columns: dict[str, list[float]] = {}
    for log in logs:
        for name, value in log.items():
            columns.setdefault(name, []).append(value)
    return {
        name: values[-1] if name in _LATEST else float(np.mean(values))
        for name, values in columns.items()
    }
