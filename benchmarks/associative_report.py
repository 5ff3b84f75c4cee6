"""Runs of associative recall as a table and as a picture."""

from collections.abc import Sequence
from itertools import accumulate, groupby
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[int, float, float]
"""Updates done; mean loss and share of right answers since the point before."""


class Run(NamedTuple):
    """A trained and tested model."""

    layer: str
    seed: int
    rate: float
    parameters: int
    state: int
    seconds: float
    cpu_seconds: float
    curve: list[Point]
    accuracy: dict[str, float]
    """Share of right answers in the test, by the number of pairs."""


class Group(NamedTuple):
    """The runs of a layer at its best learning rate, one for each seed."""

    runs: list[Run]
    tried: list[float]
    """All its learning rates."""


def chosen(runs: Sequence[Run]) -> list[Group]:
    """Return each layer at its best rate, by the last training batches.

    Args:
      runs: those of a layer have to be neighbours.
    """
    groups = []
    for _, found in groupby(runs, key=lambda run: run.layer):
        by_rate: dict[float, list[Run]] = {}
        for run in found:
            by_rate.setdefault(run.rate, []).append(run)
        best = max(by_rate.values(), key=lambda alike: (len(alike), _last(alike)))
        groups.append(Group(best, sorted(by_rate)))
    return groups


def _last(runs: Sequence[Run], points: int = 3) -> float:
    """Return the share of right answers over the last points of the curves."""
    return fmean(right for run in runs for *_, right in run.curve[-points:])


def table(runs: Sequence[Run], settings: dict[str, Any]) -> list[str]:
    """Return one row for each layer, as lines of text; runs of a layer have to be neighbours."""
    pairs = list(runs[0].accuracy)
    head = ["layer", "parameters", "state", *(f"{n} pairs" for n in pairs)]
    head += ["s", "CPU s", "rate", "of", "seeds"]
    rows = [_row(group, pairs) for group in chosen(runs)]
    widths = [max(len(line[i]) for line in (head, *rows)) for i in range(len(head))]
    vocabulary = settings["vocabulary"]
    return [
        f"Right answers in % of {settings['tested_sequences']} fresh sequences of "
        f"{settings['length']} tokens, by the number of pairs; {vocabulary['keys']} keys, "
        f"{vocabulary['values']} values",
        f"2 blocks, width {settings['width']}, {settings['heads']} heads, {settings['updates']:,} "
        "updates; state: numbers in the memory of a row; rate of those that were tried",
        "",
        *(_aligned(line, widths) for line in (head, *rows)),
    ]


def _row(group: Group, pairs: Sequence[str]) -> list[str]:
    runs, one = group.runs, group.runs[0]
    accuracy = [_spread([run.accuracy[n] for run in runs]) for n in pairs]
    wall = f"{fmean(run.seconds for run in runs):.0f}"
    cpu = f"{fmean(run.cpu_seconds for run in runs):.0f}"
    tried = " ".join(f"{rate:g}" for rate in group.tried)
    sizes = [f"{one.parameters:,}", f"{one.state:,}"]
    return [one.layer, *sizes, *accuracy, wall, cpu, f"{one.rate:g}", tried, str(len(runs))]


def _spread(shares: Sequence[float]) -> str:
    """Return the mean in percent, with the least and the largest."""
    text = f"{100 * fmean(shares):.1f}"
    return text if len(shares) == 1 else f"{text} ({100 * min(shares):.1f}-{100 * max(shares):.1f})"


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        f"{x:<{n}}" if i == 0 else f"{x:>{n}}"
        for i, (x, n) in enumerate(zip(line, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def picture(runs: Sequence[Run], stages: Sequence[float], file: Path) -> None:
    """Write the learning curves as a picture.

    Args:
      runs: those of a layer have to be neighbours.
      stages: the number of updates of each stage of the training.
      file: a `.png`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = chosen(runs)
    local = [group for group in groups if _is_local(group)]
    both = [group for group in groups if not _is_local(group)]
    parts = [("two blocks of the mixer", both), ("local attention, then the mixer", local)]
    parts = [part for part in parts if part[1]]
    figure = Figure(figsize=(5.6 * len(parts), 3.8), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    names = list(dict.fromkeys(_mixer(group) for group in groups))
    grid = figure.subplots(1, len(parts), sharey=True, squeeze=False)
    for axes, (title, part) in zip(grid.flat, parts, strict=True):
        for group in part:
            _curves(axes, group, names.index(_mixer(group)))
        for end in list(accumulate(stages))[:-1]:
            axes.axvline(end, color="#8a8f98", lw=0.8, ls=":")
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel("update; the sequences get longer at dotted lines", fontsize=8)
        axes.grid(color="#e4e6e9", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.legend(fontsize=7, framealpha=0.8, edgecolor="none")
    grid[0, 0].set_ylabel("right answers in training, %", fontsize=8)
    figure.savefig(file, dpi=110, metadata={"Software": None})


def _curves(axes: "Axes", group: Group, hue: int) -> None:
    from matplotlib import colormaps

    style: dict[str, Any] = dict(color=colormaps["tab10"](hue % 10), ls="--" if hue > 9 else "-")
    for i, run in enumerate(group.runs):
        update, _, right = zip(*run.curve, strict=True)
        label = None if i else run.layer
        axes.plot(update, [100 * share for share in right], lw=1.4, label=label, **style)


def _is_local(group: Group) -> bool:
    return group.runs[0].layer.startswith("local+")


def _mixer(group: Group) -> str:
    return group.runs[0].layer.removeprefix("local+")
