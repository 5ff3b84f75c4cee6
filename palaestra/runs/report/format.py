"""Numbers, intervals, durations and lists as a reader wants them: on pages, terminals and cards."""

import math
from collections.abc import Iterable, Sequence


def number(value: float, digits: int | None = None) -> str:
    """Return a number with `digits` decimals, or with about four significant figures."""
    if not math.isfinite(value):
        return "\N{EN DASH}"
    if digits is None:
        digits = decimals([value])
    text = f"{abs(value):,.{digits}f}"
    negative = value < 0 and float(text.replace(",", "")) != 0
    return "\N{MINUS SIGN}" + text if negative else text


def decimals(values: Iterable[float]) -> int:
    """Return how many decimals show a column of numbers with three to four significant figures."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if largest == 0 or largest >= 1000:
        return 0
    return min(6, max(0, 2 - math.floor(math.log10(largest))))


def interval(low: float | None, high: float | None, digits: int | None = None) -> str:
    """Return `[low, high]`; empty where either is not known."""
    if low is None or high is None:
        return ""
    digits = decimals([low, high]) if digits is None else digits
    return f"[{number(low, digits)}, {number(high, digits)}]"


def duration(seconds: float) -> str:
    """Return seconds as `45 s`, `12 min 5 s` or `3 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def listed(words: Sequence[str], conjunction: str = "and") -> str:
    """Return `a`, `a and b` or `a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {conjunction} {words[-1]}"


def counted(n: int, one: str, many: str = "") -> str:
    """Return `1 seed`, `5 seeds`, `1,200 episodes`."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"
