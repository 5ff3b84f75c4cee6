"""What `reset` and `step` of an environment have to return, and what is wrong otherwise."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

RESET = "(observation, info)"
STEP = "(observation, reward, terminated, truncated, info)"


def reset_fault(result: Any) -> str | None:
    """Return what is wrong with the form of what `reset` returned, or None."""
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict):
        return None
    if isinstance(result, tuple) and len(result) == 2:
        return f"reset returned an info of type {type(result[1]).__name__}; a dict is expected"
    what = f"a tuple of {len(result)}" if isinstance(result, tuple) else type(result).__name__
    return f"reset returned {what}; {RESET} is expected, the interface of Gym 0.26 and Gymnasium"


def step_fault(result: Any) -> str | None:
    """Return what is wrong with the form of what `step` returned, or None."""
    if not isinstance(result, tuple) or len(result) != 5:
        what = f"a tuple of {len(result)}" if isinstance(result, tuple) else type(result).__name__
        return f"step returned {what}; {STEP} is expected, the interface of Gym 0.26 and Gymnasium"
    for name, value in (("terminated", result[2]), ("truncated", result[3])):
        if not isinstance(value, bool | np.bool_):
            return f"step returned {name} = {value!r}; a bool is expected"
    if not isinstance(result[4], dict):
        return f"step returned an info of type {type(result[4]).__name__}; a dict is expected"
    return None


def reward_fault(reward: Any) -> str | None:
    """Return what is wrong with a reward, or None."""
    try:
        value = float(reward)
    except (TypeError, ValueError):
        return f"the reward is {reward!r}; a finite number is expected"
    return None if np.isfinite(value) else f"the reward is {value}; a finite number is expected"


def observation_fault(
    space: gymnasium.Space[Any], observation: Any, name: str = "the observation"
) -> str | None:
    """Return what is wrong with an observation for its space, or None."""
    if isinstance(space, spaces.Dict):
        return _dict_fault(space, observation, name)
    if isinstance(space, spaces.Tuple):
        if not isinstance(observation, tuple) or len(observation) != len(space.spaces):
            return f"{name} is no tuple of {len(space.spaces)}, as {space} says"
        parts = enumerate(zip(space.spaces, observation, strict=True))
        faults = (observation_fault(s, x, f"{name}[{i}]") for i, (s, x) in parts)
        return next(filter(None, faults), None)
    if isinstance(space, spaces.Text):
        return _text_fault(space, observation, name)
    if isinstance(space, spaces.Box):
        return _box_fault(space, observation, name)
    if space.contains(observation):
        return None
    return f"{name} is {observation!r}, which is not in {space}"


def _dict_fault(space: spaces.Dict, observation: Any, name: str) -> str | None:
    if not isinstance(observation, dict) or set(observation) != set(space.spaces):
        keys = sorted(observation) if isinstance(observation, dict) else type(observation).__name__
        return f"{name} is {keys}; a dict with the keys {sorted(space.spaces)} is expected"
    faults = (observation_fault(s, observation[k], f"{name}[{k!r}]") for k, s in space.items())
    return next(filter(None, faults), None)


def _text_fault(space: spaces.Text, observation: Any, name: str) -> str | None:
    if not isinstance(observation, str):
        return f"{name} is of type {type(observation).__name__}; a str is expected"
    if not space.min_length <= len(observation) <= space.max_length:
        return (
            f"{name} has {len(observation)} characters; {space.min_length} to {space.max_length} "
            "are expected"
        )
    strange = sorted(set(observation) - set(space.character_set))
    return f"{name} has characters outside its space: {strange[:5]}" if strange else None


def _box_fault(space: spaces.Box, observation: Any, name: str) -> str | None:
    if not isinstance(observation, np.ndarray | np.generic):
        return f"{name} is of type {type(observation).__name__}; an array is expected"
    observation = np.asarray(observation)
    if observation.shape != space.shape:
        return f"{name} has shape {observation.shape}; {space.shape} is expected"
    if not np.can_cast(observation.dtype, space.dtype):
        return f"{name} has type {observation.dtype}; {space.dtype} is expected"
    if observation.dtype.kind == "f" and not np.isfinite(observation).all():
        return f"{name} is not finite: {observation.ravel()[~np.isfinite(observation).ravel()][0]}"
    outside = (observation < space.low) | (observation > space.high)
    if outside.any():
        return f"{name} has a value of {observation[outside][0]}, outside the bounds of {space}"
    return None
