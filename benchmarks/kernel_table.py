"""Rows of the kernel benchmark as text."""

import math
from collections.abc import Sequence
from typing import Any

from kernel_peers import OURS

Row = dict[str, Any]

_GRAPH = (("forward", "graph"), ("both", "graph"), ("both", "peak_mib"))


def group_table(rows: Sequence[Row], good: bool) -> list[str]:
    """Return the rows of one operator at one size as lines of text.

    Args:
      rows: of all contenders.
      good: whether the test of the operator passed; else nothing is compared.
    """
    gpu = any(_part(row, "forward", "graph") for row in rows)
    head = ["contender", "p", "forward ms", "p20..p80", "+ backward", "p20..p80"]
    head += ["graph f", "graph f+b", "peak MiB"] if gpu else []
    head += ["of ours", "of p = 0", "differs"]
    cells = [_cells(row, rows, good, gpu) for row in rows]
    widths = [max(len(line[i]) for line in (head, *cells)) for i in range(len(head))]
    lines = [_aligned(line, widths) for line in (head, *cells)]
    for i, row in enumerate(rows, 1):
        lines[i] += f"  {row['note']}" if row["note"] else ""
    return lines if good else [*lines, "  no comparison: the test of this operator failed"]


def ratio(row: Row, rows: Sequence[Row], key: str, value: object) -> float | None:
    """Return the row's time over that of the row which has `value` in `key`, and else is alike."""
    (kept,) = {"contender", "p"} - {key}
    for other in rows:
        if other[key] == value and other[kept] == row[kept] and other is not row:
            mine, its = _compared(row), _compared(other)
            return mine / its if mine and its else None
    return None


def _compared(row: Row) -> float | None:
    """Return the time by which rows are compared."""
    timing = row["both"] or row["forward"]
    return timing and (timing["best"] or timing["median"])


def _cells(row: Row, rows: Sequence[Row], good: bool, gpu: bool) -> list[str]:
    times = [text for key in ("forward", "both") for text in _times(row[key])]
    graphs = [_number(_part(row, *parts)) for parts in _GRAPH] if gpu else []
    ratios = [ratio(row, rows, "contender", OURS), ratio(row, rows, "p", 0)]
    compared = ["" if x is None or not good else f"{x:.2f}x" for x in ratios]
    difference = "" if row["difference"] is None else f"{row['difference']:.1e}"
    return [row["contender"], str(row["p"]), *times, *graphs, *compared, difference]


def _times(timing: dict[str, float] | None) -> tuple[str, str]:
    if timing is None:
        return "", ""
    return _number(timing["median"]), f"{_number(timing['p20'])}..{_number(timing['p80'])}"


def _part(row: Row, key: str, part: str) -> float | None:
    return (row[key] or {}).get(part)


def _number(x: float | None) -> str:
    """Return three digits."""
    if not x:
        return "" if x is None else "0"
    return f"{x:.{max(0, 2 - math.floor(math.log10(abs(x))))}f}"


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = (
        f"{x:<{n}}" if i == 0 else f"{x:>{n}}"
        for i, (x, n) in enumerate(zip(line, widths, strict=True))
    )
    return "  ".join(["  " + first, *rest]).rstrip()
