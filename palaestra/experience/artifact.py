"""Artifacts: matrices, tables and texts that a learner gives to be kept beside its weights."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Matrix:
    """Numbers `[R, C]` whose rows and columns have labels, e.g. a similarity of tasks.

    Attributes:
      values: `[R, C]`.
      rows, columns: one label each; empty where their numbers say enough.
      title: what the numbers are, and in which unit.
    """

    values: np.ndarray
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    title: str = ""


@dataclass(frozen=True)
class Table:
    """Named columns of equal length, of numbers or strings.

    Attributes:
      columns: name -> `[R]`, in the order in which they are shown.
      title: what a row is.
    """

    columns: dict[str, np.ndarray]
    title: str = ""


@dataclass(frozen=True)
class Text:
    """A text, e.g. a transcript of one episode.

    Attributes:
      text: plain, shown as it is.
      title: what it is.
    """

    text: str
    title: str = ""


Artifact = Matrix | Table | Text
"""What `Learner.artifacts` gives under a name."""
