"""Numbers that are not finite end a run by name."""

import math
from collections.abc import Mapping

from palaestra.errors import NotFiniteError


def check_finite(metrics: Mapping[str, float], update: int, weights: str) -> None:
    """Raise if a loss or the norm of a gradient is infinite or not a number.

    Args:
      metrics: of the update, by name; those count whose name ends in "loss" or "grad_norm".
      update: number of the update, from 1.
      weights: a clause that says what has become of the weights.

    Raises:
      NotFiniteError: names the metrics, the update and what has become of the weights.
    """
    bad = [
        f"{name} is {value}"
        for name, value in metrics.items()
        if name.endswith(("loss", "grad_norm")) and not math.isfinite(value)
    ]
    if bad:
        raise NotFiniteError(
            f"update {update}: {', '.join(bad)}; {weights}. Look for rewards or observations that "
            "are infinite or very large; a smaller learning rate or reward scale can help."
        )
