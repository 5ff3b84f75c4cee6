"""Features extractors of Stable-Baselines3 whose width is a plain integer.

For MultiDiscrete observations the library's own give a NumPy integer, which torch's LSTM does not
take as its input size. Neither class has parameters of its own, so nothing else changes.
"""

from typing import Any

import gymnasium
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor


class IntegerFlatten(FlattenExtractor):
    """`FlattenExtractor`, for observations that are no Dict."""

    def __init__(self, observation_space: gymnasium.Space) -> None:
        super().__init__(observation_space)
        self._features_dim = int(self._features_dim)


class IntegerCombined(CombinedExtractor):
    """`CombinedExtractor`, for Dict observations."""

    def __init__(self, observation_space: Any, **options: Any) -> None:
        super().__init__(observation_space, **options)
        self._features_dim = int(self._features_dim)
