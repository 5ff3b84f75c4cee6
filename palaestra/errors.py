"""Errors that a user can mend: each names what was given and what would be accepted."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Self


class UserError(ValueError):
    """Bad input from outside; the command line prints its message and exits with code 2."""


class RunError(RuntimeError):
    """A run cannot continue, through no fault of its input; the command line exits with code 1."""


class EnvironmentFailure(RunError):  # noqa: N818
    """An environment raised an error, or answered what no environment may answer.

    Args:
      env_id: which environment.
      doing: what it was asked for: "make", "reset" or "step".
      error_type: name of the exception's class, e.g. "ConnectionResetError".
      text: what the exception said.
      row: row of the vector environment, where that is known.
      step: steps that the row's episode had taken, where that is known.
    """

    def __init__(
        self,
        env_id: str,
        doing: str,
        error_type: str,
        text: str,
        row: int | None = None,
        step: int | None = None,
    ) -> None:
        # All of them as `args`, so that the error survives a way between processes.
        super().__init__(env_id, doing, error_type, text, row, step)
        self.env_id, self.doing = env_id, doing
        self.error_type, self.text = error_type, text
        self.row, self.step = row, step

    @classmethod
    def of(
        cls,
        error: Exception,
        env_id: str,
        doing: str,
        row: int | None = None,
        step: int | None = None,
    ) -> Self:
        """Return the failure that `error` is; raise it `from error`."""
        return cls(env_id, doing, type(error).__name__, str(error), row, step)

    def __str__(self) -> str:
        place = "" if self.row is None else f" in row {self.row}"
        if self.step is not None and self.doing == "step":
            place += f" after {self.step} steps of the episode"
        return (
            f"environment {self.env_id}: {self.doing} failed{place}: {self.error_type}: {self.text}"
        )


class NotFiniteError(RunError):
    """A reward, an observation, a loss or a weight is not a finite number."""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return a sentence that names the known words nearest to `given`, or all of them if few."""
    words = sorted(set(known))
    near = get_close_matches(given, words, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(repr(word) for word in near)}?"
    if not words:
        return "there is none yet."
    shown = ", ".join(words[:20]) + (", ..." if len(words) > 20 else "")
    return f"accepted: {shown}."
