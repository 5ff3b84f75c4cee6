"""Segments that lie in a checkpoint."""

from pathlib import Path

import numpy as np

from palaestra.experience.segments import Layout, Segments, check_fit
from palaestra.runs.store.tensors import read_tensors


class StoredSegments:
    """Segments in a checkpoint: what stands in a state tree that was read.

    Args:
      files: one for each segment.
      layout: name -> type and shape of the whole arrays.
      stamps: int64 `[segments]`.
    """

    def __init__(self, files: list[Path], layout: Layout, stamps: np.ndarray) -> None:
        self.files = files
        self.layout = layout
        self.stamps = stamps

    def fill(self, segments: Segments) -> None:
        """Read arrays and stamps into the place of `segments`, file by file; no copy is made.

        Raises:
          ValueError: its arrays have other names, types or shapes, or are cut otherwise.
        """
        check_fit(self.layout, self.stamps, segments)
        for segment, file in enumerate(self.files):
            read_tensors(file, segments.views(segment))
        segments.stamps[:] = self.stamps

    def load(self) -> Segments:
        """Return the segments in new arrays."""
        arrays = {name: np.empty(shape, dtype) for name, (dtype, shape) in self.layout.items()}
        segments = Segments(arrays, self.stamps.copy())
        self.fill(segments)
        return segments
