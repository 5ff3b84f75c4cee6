"""Plain data, as JSON can hold it."""

from typing import Any

import numpy as np


def finite(data: Any) -> Any:
    """Return nested data with None for nan and infinities, and numbers of NumPy as plain ones."""
    if isinstance(data, dict):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    if isinstance(data, np.generic):
        data = data.item()
    return None if isinstance(data, float) and not np.isfinite(data) else data
