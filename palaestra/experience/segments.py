"""Large arrays of a run's state, as a replay's, that a checkpoint stores piece by piece."""

import threading
from collections.abc import Callable, Mapping

import numpy as np

SEGMENT_BYTES = 16 * 2**20
"""Size of a segment where its owner does not choose one."""

Layout = dict[str, tuple[str, tuple[int, ...]]]
"""Name of an array -> its type and shape."""


def layout_of(arrays: Mapping[str, np.ndarray]) -> Layout:
    """Return types and shapes of arrays."""
    return {name: (array.dtype.name, array.shape) for name, array in arrays.items()}


class Segments:
    """Named arrays of equal length, cut along axis 0 into segments: a leaf of a state tree.

    A checkpoint writes each segment to a file of its own, straight from the arrays, and takes the
    file of the checkpoint before where the segment's stamp is still the same. So it needs no copy
    of the arrays, and costs what has changed.

    The owner keeps one object as long as its arrays and calls `touch` *before* it writes into a
    segment. That changes the stamp; and where a checkpoint is being written in the background that
    does not have the segment yet, it waits until that one segment is written, so that the file
    holds what was there when the checkpoint began. Arrays that are written all over at every step
    (priorities) are better ordinary leaves, which are copied when a checkpoint begins.

    Args:
      arrays: name -> C-contiguous array `[length, ...]`.
      stamps: int64 `[segments]`, changed when the content of a segment changes; segment s holds the
        rows from `s * rows` on, `rows = ceil(length / segments)`. None: as many segments, of about
        16 MiB, as it takes.

    Raises:
      TypeError: lengths differ, an array is not contiguous, or a segment has no row.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], stamps: np.ndarray | None = None) -> None:
        self.arrays = dict(arrays)
        self.length = len(next(iter(self.arrays.values())))
        if any(len(x) != self.length or not x.flags.c_contiguous for x in self.arrays.values()):
            raise TypeError("segments: arrays of equal length in C order are expected")
        if stamps is None:
            row = sum(x.nbytes for x in self.arrays.values()) // max(1, self.length)
            stamps = np.zeros(max(1, -(-self.length * row // SEGMENT_BYTES)), np.int64)
            rows = max(1, -(-self.length // len(stamps)))
            stamps = stamps[: max(1, -(-self.length // rows))]
        self.stamps = stamps
        self.rows = max(1, -(-self.length // len(stamps)))
        if len(stamps) > 1 and (len(stamps) - 1) * self.rows >= self.length:
            raise TypeError(f"segments: {self.length} rows do not fill {len(stamps)} segments")
        self._held: set[int] = set()  # what a checkpoint in the background has yet to write
        self._wanted: int | None = None  # what its owner waits for
        self._changed = threading.Condition()

    def views(self, segment: int) -> dict[str, np.ndarray]:
        """Return the rows of one segment, by name."""
        rows = slice(segment * self.rows, (segment + 1) * self.rows)
        return {name: array[rows] for name, array in self.arrays.items()}

    def touch(self, segment: int) -> None:
        """Announce that the content of a segment is about to change."""
        if self._held:
            with self._changed:
                if segment in self._held:
                    self._wanted = segment
                    self._changed.wait_for(lambda: segment not in self._held)
        self.stamps[segment] += 1

    def touch_rows(self, rows: np.ndarray) -> None:
        """Announce that these rows are about to change."""
        for segment in np.unique(np.asarray(rows) // self.rows):
            self.touch(int(segment))

    def fill(self, segments: "Segments") -> None:
        """Copy arrays and stamps into the place of `segments`, segment by segment.

        Raises:
          ValueError: its arrays have other names, types or shapes, or are cut otherwise.
        """
        check_fit(layout_of(self.arrays), self.stamps, segments)
        for segment in range(len(self.stamps)):
            for name, rows in segments.views(segment).items():
                rows[:] = self.views(segment)[name]
        segments.stamps[:] = self.stamps

    def freeze(self) -> "Frozen":
        """Hold the present content, for one writer, until that has let go of every segment."""
        self._held = set(range(len(self.stamps)))
        return Frozen(self)


class Frozen:
    """The content of `Segments` at one moment, which a checkpoint writes.

    Attributes:
      stamps: those of that moment.
    """

    def __init__(self, segments: Segments) -> None:
        self.segments = segments
        self.stamps = segments.stamps.copy()
        self.layout = layout_of(segments.arrays)

    def store(self, write: Callable[[int, dict[str, np.ndarray]], None]) -> None:
        """Call `write(segment, views)` for every segment and let go of it.

        The order is that of the rows, but what the owner waits for comes first.
        """
        of = self.segments
        try:
            while of._held:
                with of._changed:
                    wanted, of._wanted = of._wanted, None
                # What is waited for may just have been written.
                segment = wanted if wanted in of._held else min(of._held)
                write(segment, of.views(segment))
                with of._changed:
                    of._held.remove(segment)
                    of._changed.notify_all()
        finally:
            self.release()

    def release(self) -> None:
        """Let go of every segment, also where it was not written."""
        with self.segments._changed:
            self.segments._held.clear()
            self.segments._changed.notify_all()


def check_fit(layout: Layout, stamps: np.ndarray, segments: Segments) -> None:
    """Check that stored arrays go into the place of `segments`.

    Raises:
      ValueError: they do not.
    """
    found = layout_of(segments.arrays)
    if layout != found or len(stamps) != len(segments.stamps):
        raise ValueError(
            f"stored arrays {layout} in {len(stamps)} segments do not fit {found} in "
            f"{len(segments.stamps)} segments"
        )
