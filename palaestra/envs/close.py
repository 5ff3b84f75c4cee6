"""Closing environments at the end of a run."""

import warnings
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv


def safe_close(env: gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> None:
    """Close an environment; an error becomes a warning, because nothing is lost by it."""
    try:
        env.close()
    except Exception as error:
        warnings.warn(
            f"{env} could not be closed: {type(error).__name__}: {error}",
            RuntimeWarning,
            stacklevel=2,
        )
