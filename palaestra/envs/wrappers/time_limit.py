"""A limit of steps, for environments that have none of their own."""

from typing import Any, ClassVar

import gymnasium
from pydantic import Field

from palaestra.options import Options, validate


class TimeLimitOptions(Options):
    """Options of `time-limit`."""

    steps: int = Field(ge=1, description="steps after which an episode is truncated")


class TimeLimit(gymnasium.wrappers.TimeLimit):
    """Truncate every episode after a number of steps.

    It stands in each row, because only a row itself can end its episode: an environment with this
    wrapper is stepped row by row.

    Args:
      env: the environment of one row.
      options: fields of `TimeLimitOptions`.

    Raises:
      UserError: an option that is not accepted.
    """

    Config: ClassVar[type[Options]] = TimeLimitOptions
    stateless = True

    def __init__(self, env: gymnasium.Env[Any, Any], **options: Any) -> None:
        super().__init__(env, validate(self.Config, options).steps)  # type: ignore[attr-defined]
