"""What a verb tells the user beside its result."""

import sys


def say(message: str) -> None:
    """Tell the user something on standard error, so that standard output stays the result's."""
    print(message, file=sys.stderr, flush=True)
