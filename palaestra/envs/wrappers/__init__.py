"""Wrappers for single and vector environments, imported on use."""

import importlib
from typing import Any

_MODULES = {
    "ActionMask": "action_mask",
    "HistoryObservation": "history",
    "RunningStatistics": "statistics",
    "TimeLimit": "time_limit",
    "VectorActionMask": "action_mask",
    "VectorFrameStack": "frame_stack",
    "VectorHistory": "history",
    "VectorNormaliseObservation": "normalise",
    "VectorNormaliseReward": "normalise",
    "VectorRewardClip": "reward_clip",
}

__all__ = [
    "ActionMask",
    "HistoryObservation",
    "RunningStatistics",
    "TimeLimit",
    "VectorActionMask",
    "VectorFrameStack",
    "VectorHistory",
    "VectorNormaliseObservation",
    "VectorNormaliseReward",
    "VectorRewardClip",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
