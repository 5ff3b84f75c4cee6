"""What wrappers have gathered, among the weights that are stored and handed around.

An agent that was trained on normalised observations acts on nothing else, so that the statistics
go wherever its weights go: into checkpoints, evaluations and exports.
"""

import numpy as np

from palaestra.envs.wrappers.statistics import Statistics
from palaestra.experience.weights import Weights

PREFIX = "wrappers/"


def pack(weights: Weights, statistics: dict[str, Statistics]) -> Weights:
    """Return the weights together with statistics, as arrays under names of their own."""
    packed = dict(weights)
    for wrapper, leaves in statistics.items():
        for leaf, values in leaves.items():
            for name, value in values.items():
                packed[f"{PREFIX}{wrapper}/{leaf}/{name}"] = np.asarray(value, np.float64)
    return packed


def unpack(packed: Weights) -> tuple[Weights, dict[str, Statistics]]:
    """Return the weights and the statistics that `pack` put together."""
    weights: Weights = {}
    statistics: dict[str, Statistics] = {}
    for path, array in packed.items():
        if not path.startswith(PREFIX):
            weights[path] = array
            continue
        wrapper, _, rest = path.removeprefix(PREFIX).partition("/")
        leaf, _, name = rest.rpartition("/")
        value = float(array) if name == "count" else array
        statistics.setdefault(wrapper, {}).setdefault(leaf, {})[name] = value
    return weights, statistics
