"""The primitives of a tick in one array, which is written anew each time and only ever grows."""

from __future__ import annotations

import numpy as np

from tiler.kernels.primitives import COLUMNS
from tiler.types import Int32

_FIRST_ROWS = 1024


class Rows:
    """Rows of primitives, in drawing order.

    Attributes:
        array: (capacity, COLUMNS) int32, C-contiguous; another one after `make_room` if it was too small.
        count: how many rows of it are written. Who writes to `array` directly sets it.
    """

    def __init__(self) -> None:
        self.array: Int32 = np.empty((_FIRST_ROWS, COLUMNS), np.int32)
        self.count = 0

    def clear(self) -> None:
        """Begin a new tick."""
        self.count = 0

    def make_room(self, more: int) -> None:
        """See that this many rows can be added."""
        if self.count + more > len(self.array):
            grown = np.empty((2 * (self.count + more), COLUMNS), np.int32)
            grown[: self.count] = self.array[: self.count]
            self.array = grown

    def add(self, rows: Int32) -> None:
        """Copy rows to the end."""
        if len(rows):
            self.make_room(len(rows))
            end = self.count + len(rows)
            self.array[self.count : end] = rows
            self.count = end

    @property
    def written(self) -> Int32:
        """(count, COLUMNS): valid until the next tick."""
        return self.array[: self.count]


def no_rows() -> Int32:
    """An overlay of nothing."""
    return np.empty((0, COLUMNS), np.int32)
