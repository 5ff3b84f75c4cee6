"""Which runs belong together: the ones that differ in the seed alone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from palaestra.runs.report.read import Run

_OF_ONE_RUN = ("seed", "description", "tensorboard")
"""Keys of a configuration in which repetitions of one experiment may differ."""


@dataclass(frozen=True)
class Group:
    """Repetitions of one experiment with different seeds."""

    label: str
    runs: list[Run]

    @property
    def seeds(self) -> list[int]:
        """The seeds, sorted."""
        return sorted({run.seed for run in self.runs if run.seed is not None})


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Put runs together whose configurations are equal but for the seed, and label them."""
    together: dict[str, list[Run]] = {}
    for run in runs:
        shared = {key: value for key, value in run.config.items() if key not in _OF_ONE_RUN}
        key = json.dumps([run.experiment, shared], sort_keys=True, default=str)
        together.setdefault(key, []).append(run)
    return [
        Group(label, members)
        for label, members in zip(_labels(list(together.values())), together.values(), strict=True)
    ]


def _labels(groups: list[list[Run]]) -> list[str]:
    """Return the shortest description that tells the groups apart."""
    firsts = [members[0] for members in groups]
    descriptions = [
        [run.agent or run.experiment for run in firsts],
        [run.experiment for run in firsts],
        [f"{run.experiment}, {run.agent}" for run in firsts],
    ]
    for labels in descriptions:
        if len(set(labels)) == len(labels):
            return labels
    return [run.name for run in firsts]
