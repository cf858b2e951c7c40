"""Where the tracks of one stream came from: a short, thinned history of foot points."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import numpy as np

from tiler.types import CLOCK_HZ, Float32, Tracks

POINTS = 32
"""Most points kept of one track."""


class Trails:
    """Foot points (bottom centre of the box) of the last `seconds`, per track.

    Memory is bounded: a track that vanished is forgotten once its newest point is older
    than `seconds`, and of each track the newest point is kept, and before it only points
    that are `seconds / 30` or more apart.
    """

    def __init__(self, seconds: float) -> None:
        self._ticks = float(seconds * CLOCK_HZ)
        self._spacing = self._ticks / (POINTS - 2)
        self._count = 0
        self._ids = np.empty(0, np.int64)
        self._points = np.empty((0, 3 * POINTS))
        self._rows: tuple[int | None, Float32] = None, np.empty((0, 4), np.float32)   # of which time

    def add(self, tracks: Tracks) -> None:
        """Take the tracks of one picture; pts never decrease."""
        room = self._count + len(tracks.track_id)
        if room > len(self._ids):
            self._ids = np.resize(self._ids, 2 * room)  # repeats what there is, which does no harm
            self._points = np.resize(self._points, (2 * room, 3 * POINTS))
        self._count, rows = _kernels().add_points(
            self._ids, self._points, self._count, tracks.track_id, tracks.xyxy, tracks.pts, self._ticks, self._spacing
        )
        self._rows = tracks.pts, rows

    def rows(self, pts: int) -> Float32:
        """(m, 4) float32 track_id, x, y, age_s of the points no older than `seconds` at `pts`.

        Ids ascend; within an id the newest point comes first.
        """
        if self._count > 0 and self._rows[0] != pts:
            self._rows = pts, _kernels().trail_rows(self._ids, self._points, self._count, pts, self._ticks)
        return self._rows[1]


@cache
def _kernels() -> ModuleType:
    """Imported when there are tracks: a run without any does not wait for a compiler."""
    from tiler.kernels import trails_cpu

    return trails_cpu
