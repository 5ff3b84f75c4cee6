"""Errors that a user can mend: each names what was given and what would be accepted."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Bad input from outside; the command line prints its message and exits with code 2."""


class RunError(RuntimeError):
    """A run could not go on, through no fault of its input; the command line exits with code 1."""


class NotFiniteError(RunError):
    """A loss, the norm of a gradient or a weight became infinite or is not a number."""


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
