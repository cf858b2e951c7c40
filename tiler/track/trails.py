"""Where tracks came from: of each stream a short, thinned history of foot points."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import numpy as np

from tiler.crowd import Crowd, TrackBatch
from tiler.track.base import grown
from tiler.types import CLOCK_HZ

POINTS = 32
"""Most points kept of one track."""


class Trails:
    """Foot points (bottom centre of the box) of the last `seconds`, per track, of some streams.

    Memory is bounded: a track that vanished is forgotten once its newest point is older
    than `seconds`, and of each track the newest point is kept, and before it only points
    that are `seconds / 30` or more apart.
    """

    def __init__(self, seconds: float, streams: int = 1) -> None:
        """
        Args:
            seconds: see above.
            streams: how many there may be at once.
        """
        self._ticks = float(seconds * CLOCK_HZ)
        self._spacing = self._ticks / (POINTS - 2)
        self._counts, self._most = np.zeros(streams, np.int64), 0
        self._ids = np.zeros((streams, 0), np.int64)
        self._points = np.zeros((streams, 0, 3 * POINTS))

    def begin(self, stream: int) -> None:
        """Another source's tracks come from now on."""
        self._counts[stream] = 0

    def add(self, tracks: TrackBatch) -> Crowd:
        """Take the tracks of the next pictures; pts of a stream never decrease.

        Returns:
            The same, and the points of each picture's trails that are no older than `seconds`; ids ascend.
        """
        room = self._most + tracks.most
        if room > self._ids.shape[1]:
            self._ids, self._points = grown(self._ids, 2 * room), grown(self._points, 2 * room)
        most, ends, rows = _kernels().add_points(
            tracks.streams, tracks.pts, tracks.ends, tracks.track_id, tracks.xyxy,
            self._ids, self._points, self._counts, self._ticks, self._spacing,
        )  # fmt: skip
        self._most = max(self._most, most)
        return Crowd(tracks, rows, ends)


@cache
def _kernels() -> ModuleType:
    """Imported when there are tracks: a run without any does not wait for a compiler."""
    from tiler.kernels import trails_cpu

    return trails_cpu
